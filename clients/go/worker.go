package perigee

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Time before the first attempt to come back, which doubles up to the longest.
const (
	retryFirst   = 100 * time.Millisecond
	retryLongest = 10 * time.Second
)

// Function answers a call: what it returns is its answer, as JSON; the text of its error is told to the caller. The
// context ends when nobody waits for the answer any more: the caller left, the time is over, or the connection ended.
type Function func(ctx context.Context, call *Call) (any, error)

// Functions are functions by their names.
type Functions map[string]Function

// Call is a call as a function sees it.
type Call struct {
	ID       string
	Function string
	// Params is JSON.
	Params json.RawMessage
	// Auth has the claims of the caller's valid token, a JSON object.
	Auth json.RawMessage
}

// Worker is a worker, which begins with Run.
type Worker struct {
	// Capacity is how many calls it takes at once, 1 to 1000; 64 where nothing else is set.
	Capacity uint32
	// Grace is how long calls may take to end after a stop; 30 s where nothing else is set.
	Grace time.Duration

	client    *Client
	service   string
	functions Functions
}

// Run takes calls, and comes back where a connection ends, until ctx does: then it takes no more, and returns nil when
// those that it has are answered or Grace is over. Its error is a status of gRPC where the gateway refuses the worker.
func (w *Worker) Run(ctx context.Context) error {
	if len(w.functions) == 0 {
		return errors.New("a worker needs a function")
	}
	// What runs goes on for a while when ctx ends.
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stopGrace := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(w.Grace, end)
		context.AfterFunc(running, func() { timer.Stop() })
	})
	defer stopGrace()
	var sessions sync.WaitGroup
	defer sessions.Wait()

	delay := retryFirst
	for ctx.Err() == nil {
		begin := time.Now()
		err := w.session(ctx, running, &sessions)
		if refused := new(refusedError); errors.As(err, &refused) {
			return refused.error
		}
		if err != nil && ctx.Err() == nil {
			w.client.options.Logger.Warn("worker is not connected", "service", w.service, "error", err)
		}
		if time.Since(begin) > retryLongest {
			delay = retryFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay/2 + rand.N(delay/2)):
		}
		delay = min(delay*2, retryLongest)
	}
	return nil
}

// session begins one session, and returns when it has ended, or when no more calls come by it, while it ends those that
// it has.
func (w *Worker) session(stop, running context.Context, sessions *sync.WaitGroup) error {
	token, err := w.client.token(stop)
	if err != nil {
		return fmt.Errorf("there is no token: %w", err)
	}
	s := &session{worker: w, leaving: make(chan struct{}), calls: map[string]context.CancelFunc{}}
	ended := make(chan error, 1)
	sessions.Go(func() { ended <- s.run(stop, running, token) })
	select {
	case err := <-ended:
		return err
	case <-s.leaving:
		return nil
	}
}

// refusedError is one with which another attempt would be refused again.
type refusedError struct{ error }

func refused(err error) error {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.Unimplemented:
		return &refusedError{err}
	default:
		return err
	}
}
