package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"os/signal"
	"syscall"

	perigee "perigee.example/client"
)

func send(ctx context.Context, call *perigee.Call) (any, error) {
	var params struct{ To string }
	if err := json.Unmarshal(call.Params, &params); err != nil || params.To == "" {
		return nil, errors.New("to is required")
	}
	return map[string]any{"sent": params.To}, nil
}

func main() {
	url := "http://localhost:4122"
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	client, err := perigee.Connect(url, perigee.Options{Project: "shop", Token: os.Getenv("TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := client.Worker("mail", perigee.Functions{"send": send}).Run(ctx); err != nil {
		log.Fatal(err)
	}
}
