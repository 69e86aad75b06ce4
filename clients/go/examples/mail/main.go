// A worker: mail URL PROJECT TOKEN
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	perigee "perigee.example/client"
)

func send(_ context.Context, call *perigee.Call) (any, error) {
	var params struct{ To string }
	var auth struct{ ID any }
	if err := errors.Join(json.Unmarshal(call.Params, &params), json.Unmarshal(call.Auth, &auth)); err != nil {
		return nil, err
	}
	if params.To == "" {
		return nil, errors.New("to is required")
	}
	return map[string]any{"sent": params.To, "by": auth.ID}, nil
}

func later(ctx context.Context, call *perigee.Call) (any, error) {
	var params struct{ Seconds float64 }
	if err := json.Unmarshal(call.Params, &params); err != nil {
		return nil, err
	}
	fmt.Println("later: begun")
	select {
	case <-ctx.Done():
		fmt.Println("later: cancelled")
		return nil, ctx.Err()
	case <-time.After(time.Duration(params.Seconds * float64(time.Second))):
		deadline, _ := ctx.Deadline()
		return map[string]any{"left": time.Until(deadline).Seconds()}, nil
	}
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stdout, nil)))
	client, err := perigee.Connect(os.Args[1], perigee.Options{Project: os.Args[2], Token: os.Args[3]})
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err = client.Worker("mail", perigee.Functions{"send": send, "later": later}).Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
