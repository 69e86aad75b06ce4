package perigee

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	wire "perigee.example/client/functions"
)

const (
	registerTimeout = 10 * time.Second
	// The most that a function may answer: a larger message would end the connection, and all calls with it.
	answerBytes = 8 << 20
	// Of the text of an error, which may have what the caller sent in it.
	errorBytes = 4096
)

// session is one registration of a worker: a stream of perigee.api.v1.Functions/Work.
type session struct {
	worker *Worker
	// Closed when no more calls come by it.
	leaving chan struct{}
	leave   sync.Once
	stream  *grpc.GenericClientStream[wire.WorkerMessage, wire.GatewayMessage]
	// The stream takes one message at a time.
	sending sync.Mutex

	mu    sync.Mutex
	calls map[string]context.CancelFunc
}

// run takes calls until it ends. Where stop ends it takes no more, and ends when those that it has are answered, or
// when running ends.
func (s *session) run(stop, running context.Context, token string) error {
	connection, err := s.worker.client.dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, end := context.WithCancel(running)
	defer end()
	if err := s.register(stop, ctx, end, connection, token); err != nil {
		return err
	}
	s.worker.client.options.Logger.Info("worker is registered", "service", s.worker.service)
	defer context.AfterFunc(stop, func() {
		s.leave.Do(func() { close(s.leaving) })
		s.send(&wire.WorkerMessage{Message: &wire.WorkerMessage_Drain{Drain: &wire.Drain{}}})
	})()
	for {
		message, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.take(ctx, message)
	}
}

// register opens the stream and waits until the gateway knows the worker.
func (s *session) register(
	stop, ctx context.Context, end context.CancelFunc, connection *grpc.ClientConn, token string,
) error {
	// Nobody is a worker yet: a stop ends it at once.
	defer context.AfterFunc(stop, end)()
	timer := time.AfterFunc(registerTimeout, end)
	defer timer.Stop()
	if strings.ContainsFunc(token, func(char rune) bool { return char <= ' ' || char > '~' }) {
		return &refusedError{status.Error(codes.Unauthenticated, "the token has characters that no token has")}
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	description := &grpc.StreamDesc{StreamName: "Work", ClientStreams: true, ServerStreams: true}
	stream, err := connection.NewStream(ctx, description, "/perigee.api.v1.Functions/Work")
	if err != nil {
		return refused(err)
	}
	s.stream = &grpc.GenericClientStream[wire.WorkerMessage, wire.GatewayMessage]{ClientStream: stream}
	register := &wire.Register{
		Project: s.worker.client.options.Project, Service: s.worker.service,
		Functions: slices.Sorted(maps.Keys(s.worker.functions)), Capacity: s.worker.Capacity,
	}
	s.send(&wire.WorkerMessage{Message: &wire.WorkerMessage_Register{Register: register}})
	first, err := s.stream.Recv()
	if err != nil {
		return refused(err)
	}
	if first.GetRegistered() == nil {
		return errors.New("the gateway does not register workers")
	}
	return nil
}

func (s *session) take(ctx context.Context, message *wire.GatewayMessage) {
	switch message := message.Message.(type) {
	case *wire.GatewayMessage_Call:
		invocation := message.Call
		ctx, end := context.WithTimeout(ctx, invocation.Timeout.AsDuration())
		s.mu.Lock()
		s.calls[invocation.Id] = end
		s.mu.Unlock()
		go s.answer(ctx, invocation)
	case *wire.GatewayMessage_Cancel:
		s.forget(message.Cancel.Id)
	case *wire.GatewayMessage_Drain:
		s.leave.Do(func() { close(s.leaving) })
	}
}

// forget ends a call, and says whether somebody waited for it.
func (s *session) forget(id string) bool {
	s.mu.Lock()
	end, waits := s.calls[id]
	delete(s.calls, id)
	s.mu.Unlock()
	if waits {
		end()
	}
	return waits
}

func (s *session) answer(ctx context.Context, invocation *wire.Invocation) {
	answer, err := s.call(ctx, invocation)
	if ctx.Err() != nil {
		// The answer is nobody's: the gateway has told its caller why.
		s.forget(invocation.Id)
		return
	}
	result := &wire.Result{Id: invocation.Id}
	if err == nil {
		result.Result = answer
	} else {
		s.worker.client.options.Logger.Warn("function failed", "function", invocation.Function, "error", err)
		result.Error = shortened(err.Error())
		if result.Error == "" {
			result.Error = "the function failed"
		}
	}
	if s.forget(invocation.Id) {
		s.send(&wire.WorkerMessage{Message: &wire.WorkerMessage_Result{Result: result}})
	}
}

// call runs a function; one that panics fails its call, not the worker.
func (s *session) call(ctx context.Context, invocation *wire.Invocation) (answer []byte, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.worker.client.options.Logger.Error("function panicked", "function", invocation.Function, "cause", cause)
			err = errors.New("the function failed")
		}
	}()
	function, known := s.worker.functions[invocation.Function]
	if !known {
		return nil, fmt.Errorf("function %s is not known", invocation.Function)
	}
	returned, err := function(ctx, &Call{
		ID: invocation.Id, Function: invocation.Function, Params: invocation.Params, Auth: invocation.Auth,
	})
	if err != nil {
		return nil, err
	}
	if answer, err = json.Marshal(returned); err == nil && len(answer) > answerBytes {
		return nil, fmt.Errorf("the answer is over the limit of %d bytes", answerBytes)
	}
	return answer, err
}

// shortened is a text of valid UTF-8, without what is over its limit.
func shortened(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), errorBytes)], "")
}

// send sends a message. That of a stream that has ended is nobody's: its end is told where it is read.
func (s *session) send(message *wire.WorkerMessage) {
	s.sending.Lock()
	defer s.sending.Unlock()
	_ = s.stream.Send(message)
}
