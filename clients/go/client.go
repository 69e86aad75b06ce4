// Package perigee makes processes workers of Perigee: they dial in and take calls of functions.
package perigee

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Parameters of 8 MiB, and claims.
const messageBytes = 16 << 20

// Options of a client.
type Options struct {
	// The project's id.
	Project string
	// The token of the workers. TokenSource takes its place where tokens expire.
	Token string
	// TokenSource makes the token for one registration.
	TokenSource func(context.Context) (string, error)
	// Logger is told what happens; slog.Default() where there is none.
	Logger *slog.Logger
}

// Client knows where a gateway is, and as whom its workers come. It holds no connection of its own.
type Client struct {
	target      string
	credentials credentials.TransportCredentials
	options     Options
}

// Connect returns a client of the gateway at an address, http:// or https://.
func Connect(address string, options Options) (*Client, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Hostname() == "" || (parsed.Path != "" && parsed.Path != "/") {
		return nil, fmt.Errorf("invalid address %s: expected http://HOST:PORT or https://HOST:PORT", address)
	}
	if options.Project == "" {
		return nil, errors.New("project is required")
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	client := &Client{options: options}
	port := parsed.Port()
	switch parsed.Scheme {
	case "http":
		client.credentials = insecure.NewCredentials()
		if port == "" {
			port = "80"
		}
	case "https":
		client.credentials = credentials.NewTLS(nil)
		if port == "" {
			port = "443"
		}
	default:
		return nil, fmt.Errorf("invalid address %s: expected http:// or https://", address)
	}
	client.target = net.JoinHostPort(parsed.Hostname(), port)
	return client, nil
}

// Worker returns a worker of a service with these functions, which begins with Run.
func (c *Client) Worker(service string, functions Functions) *Worker {
	return &Worker{Capacity: 64, Grace: 30 * time.Second, client: c, service: service, functions: functions}
}

func (c *Client) token(ctx context.Context) (string, error) {
	if c.options.TokenSource == nil {
		return c.options.Token, nil
	}
	return c.options.TokenSource(ctx)
}

// dial returns a connection of one session, so that the next one may lead to another node.
func (c *Client) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(c.target,
		grpc.WithTransportCredentials(c.credentials),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytes)),
	)
}
