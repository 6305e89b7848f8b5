package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/verdict"
)

// receiver serves iDenfy's webhooks at one address. A nil one serves nothing.
type receiver struct {
	address string // as configured; empty: of systemd's socket
	certain
	server *http.Server
}

// certain is a listener that speaks TLS while there is a certificate, and plain
// http else: a reload changes that while the address stays.
type certain struct {
	net.Listener
	cert *atomic.Pointer[tls.Certificate]
}

// Accept implements net.Listener.
func (l certain) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.cert.Load() == nil {
		return c, err
	}
	return tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return l.cert.Load(), nil
	}}), nil
}

// handed is the socket that systemd hands over, or nil (sd_listen_fds(3)). It
// stays open while the daemon restarts, and who connects meanwhile waits.
func handed() (net.Listener, error) {
	list, err := activation.Listeners()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if len(list) > 1 || list[0] == nil {
		return nil, errors.New("systemd hands over something that is not one socket for webhooks; see ListenStream= in idenfy-batch-verdict.socket")
	}
	return list[0], nil
}

// receives says what the configuration asks for: whether webhooks are received,
// the keys, and the certificate, if there is one.
func (d *daemon) receives(cfg *config.Config) (on bool, set verdict.Settings, cert *tls.Certificate, err error) {
	v := &cfg.Verdict
	if d.o.Once || v.Listen == "" && d.handed == nil {
		return false, set, nil, nil
	}
	set = verdict.Settings{Path: v.Path, Full: v.Keep == "full"}
	if d.handed != nil {
		is := d.handed.Addr().String()
		if v.Listen != "" && !sameAddress(v.Listen, d.handed) {
			return false, set, nil, fmt.Errorf("verdict.listen is %s, and systemd hands over a socket at %s; leave verdict.listen empty, or change idenfy-batch-verdict.socket", v.Listen, is)
		}
		if err := cfg.CheckReceiver(is); err != nil && d.handed.Addr().Network() == "tcp" {
			return false, set, nil, fmt.Errorf("idenfy-batch-verdict.socket: %s %w", is, err)
		}
	}
	if set.Keys, err = cfg.WebhookKeys(); err != nil {
		return false, set, nil, err
	}
	if v.TLS.CertFile != "" {
		cert, err = cfg.Certificate()
	}
	return err == nil, set, cert, err
}

// CheckReceiver says what is wrong with the keys and the certificate for
// webhooks, where these are received.
func CheckReceiver(cfg *config.Config) error {
	if cfg.Verdict.Listen == "" {
		return nil
	}
	_, err := cfg.WebhookKeys()
	if cfg.Verdict.TLS.CertFile != "" {
		_, certErr := cfg.Certificate()
		err = errors.Join(err, certErr)
	}
	return err
}

func sameAddress(address string, l net.Listener) bool {
	a, err := net.ResolveTCPAddr("tcp", address)
	return err == nil && a.String() == l.Addr().String()
}

// receive has the address; nobody is answered before serve. One that listens
// there already stays.
func (d *daemon) receive(cfg *config.Config, old *receiver, on bool) (*receiver, error) {
	if !on {
		return nil, nil
	}
	if old != nil && (old.address == cfg.Verdict.Listen || sameAddress(cfg.Verdict.Listen, old.Listener)) {
		return old, nil
	}
	l, address := d.handed, ""
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", cfg.Verdict.Listen); err != nil {
			return nil, fmt.Errorf("verdict.listen: %w; choose another port, or leave it empty", err)
		}
		address = cfg.Verdict.Listen
	}
	return &receiver{address: address, certain: certain{Listener: verdict.Limit(l), cert: &atomic.Pointer[tls.Certificate]{}}}, nil
}

// serve answers from now on.
func (r *receiver) serve(server *http.Server, emit events.Sink) {
	r.server = server
	go func() {
		if err := r.server.Serve(r.certain); !errors.Is(err, http.ErrServerClosed) {
			emit(events.Trouble{What: "webhooks are not received any more", Err: err})
		}
	}()
}

// close ends it: at once for the address, and within two seconds for those that
// are being answered.
func (r *receiver) close() {
	if r == nil {
		return
	}
	if r.server == nil {
		_ = r.Close() // nobody was ever answered
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if r.server.Shutdown(ctx) != nil {
		_ = r.server.Close() // what has no answer is sent again
	}
}

// deafen ends the receiver that is in force. A reload may just be about to have
// another one answer.
func (d *daemon) deafen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.Load().receiver.close()
}

// follow brings the settings of webhooks into force.
func (d *daemon) follow(next *current, set verdict.Settings, cert *tls.Certificate) {
	d.webhooks.Set(set)
	if r := next.receiver; r != nil {
		r.cert.Store(cert)
		if r.server == nil {
			r.serve(d.webhooks.Server(), d.emit)
		}
	}
}

// certificateEvery is the time between two looks for another certificate.
const certificateEvery = time.Minute

// renew reads the certificate again when its files change, until ctx ends. What
// can't be read leaves the old one in force, and is said.
func (d *daemon) renew(ctx context.Context) {
	tick := time.NewTicker(certificateEvery)
	defer tick.Stop()
	for seen := d.certificateFiles(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		is := d.certificateFiles()
		if is == seen {
			continue
		}
		seen = is
		d.mu.Lock() // not beside a reload
		if now := d.now.Load(); now.receiver != nil && now.cfg.Verdict.TLS.CertFile != "" {
			if cert, err := now.cfg.Certificate(); err == nil {
				now.receiver.cert.Store(cert)
			} else {
				d.emit(events.Trouble{What: "the receiver's new certificate can't be had, the old one stays in force", Err: err})
			}
		}
		d.mu.Unlock()
	}
}

// certificateFiles tells one state of the certificate's files from another.
func (d *daemon) certificateFiles() [2]string {
	t := d.now.Load().cfg.Verdict.TLS
	var state [2]string
	for i, path := range []string{t.CertFile, t.KeyFile} {
		if info, err := os.Stat(path); err == nil {
			state[i] = fmt.Sprintf("%s %d %d", path, info.ModTime().UnixNano(), info.Size())
		}
	}
	return state
}

// asker asks for verdicts that did not come.
func (d *daemon) asker() *verdict.Asker {
	return &verdict.Asker{
		Journal: d.journal, Emit: d.emit, Came: d.clerk.Wake,
		After:  func() time.Duration { return time.Duration(d.now.Load().cfg.Verdict.CheckAfter) },
		Turn:   d.limiter.Wait,
		Paused: func() bool { return len(d.state.State().Gates) > 0 },
		Look: func(ctx context.Context, scanRef string) (idenfy.Standing, error) {
			return d.now.Load().client.Look(ctx, scanRef)
		},
	}
}
