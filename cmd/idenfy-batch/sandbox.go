package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/sandbox"
)

func newSandbox() *cobra.Command {
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a stand-in for iDenfy's API on loopback",
		Long: `Sandbox serves the process, status, token and delete calls as iDenfy documents
them, for integration tests: nothing leaves the machine. It enforces credentials,
single use of tokens, one active session a clientId, their expiry, required images
and the 20 MB limit, deletes no session that lives, and keeps count.

  GET  /sandbox/report   the count, and what a client must never do
  POST /sandbox/script   {"token": "…", "steps": [{"status": 429,
                         "identifier": "TOO_MANY_REQUESTS", "retry_after": "3"},
                         {"fault": "lose_answer"}]}
                         treats the next requests with that token so; without
                         "token" the first step is for all, without "steps" it ends;
                         {"session": true, "client_id": "…", "steps": […]} does
                         so with the sessions that are asked for

Faults: reset_before_body, reset_in_body, lose_answer, half_answer, stall,
stall_in_body, stall_answer, garbage, drip.

With --webhook it sends a webhook for each session that was processed, signed
with --webhook-key: automatic, APPROVED and final; again, ten times at most, where
it is not answered 2xx.

It ends with SIGINT or SIGTERM, and exits 1 if a token was sent again after it
was processed and answered.`,
		Example: "  idenfy-batch sandbox --listen 127.0.0.1:8080 --key key --secret secret",
		Args:    cobra.NoArgs,
	}
	listen := c.Flags().String("listen", "127.0.0.1:0", "`address` to listen on; port 0 is any that is free")
	var o sandbox.Options
	c.Flags().StringVar(&o.Key, "key", "", "API key to demand (default: any is taken)")
	c.Flags().StringVar(&o.Secret, "secret", "", "API secret to demand (default: any is taken)")
	c.Flags().BoolVar(&o.Strict, "strict", false, "know only tokens that its own token call issued")
	c.Flags().BoolVar(&o.ImageLimit, "image-limit", false, "enforce the 6 MB an image of newer documentation")
	c.Flags().StringVar(&o.TokenField, "token-field", "authToken", "`name` of a submission's field for the token: authToken, or token")
	c.Flags().BoolVar(&o.ManySessions, "many-sessions", false, "open another session of a clientId while one is active, in place of 409")
	var hooks sandbox.Webhooks
	c.Flags().StringVar(&hooks.URL, "webhook", "", "`URL` that webhooks are sent to")
	c.Flags().StringVar(&hooks.Key, "webhook-key", "", "key that signs them")
	c.MarkFlagsRequiredTogether("webhook", "webhook-key")
	cert := c.Flags().String("tls-cert", "", "certificate `file` (PEM), to speak https")
	key := c.Flags().String("tls-key", "", "its key `file` (PEM)")
	c.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.TokenField != "authToken" && o.TokenField != "token" {
			return &exitError{code: exitUsage, err: errors.New("--token-field has to be authToken or token")}
		}
		l, scheme, err := listenSandbox(*listen, *cert, *key)
		if err != nil {
			return failed(err)
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		fmt.Fprintf(c.OutOrStdout(), "%s://%s\n", scheme, l.Addr()) // who reads it may end it at once
		s := sandbox.New(o)
		s.Webhook(hooks)
		return serveSandbox(ctx, c, s, l)
	}
	return c
}

// listenSandbox listens on an address, with TLS if there is a certificate.
func listenSandbox(address, cert, key string) (l net.Listener, scheme string, err error) {
	if l, err = net.Listen("tcp", address); err != nil || cert == "" {
		return l, "http", err
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, "", errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}), "https", nil
}

func serveSandbox(ctx context.Context, c *cobra.Command, s *sandbox.Sandbox, l net.Listener) error {
	if err := s.Serve(ctx, l); err != nil {
		return failed(err)
	}
	r := s.Report()
	fmt.Fprintf(c.ErrOrStderr(), "%d requests, %d processed, %d rejected, %d repeated\n", r.Requests, r.Processed, r.Rejected, r.Repeats)
	for _, v := range r.Violations {
		fmt.Fprintln(c.ErrOrStderr(), "violation:", v)
	}
	if len(r.Violations) > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}
