// Package control owns what commands ask of a running daemon: its socket, who
// asks, the requests.
//
// The socket lies in the directory journal below the root, so that a command
// that knows the configuration finds it; or, where the service has a runtime
// directory, there, and journal/run is a link to that.
package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Where the socket is, below the root.
const (
	dirName    = "journal"
	linkName   = "run"
	socketName = "control.sock"
)

// runtimeDir is the service's own below /run (systemd.exec(5)), or empty.
func runtimeDir() string {
	dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	return dir
}

// through calls f with a path to the socket in dir that is short enough for a
// socket's address (108 bytes, unix(7)), however long dir is.
func through(dir string, f func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
}

// Listener is the daemon's end of the socket.
type Listener struct {
	net.Listener
	dir        string            // where the socket is
	room       chan struct{}     // one for each connection of root and the daemon's user
	others     chan struct{}     // one for each of others
	privileged func(uint32) bool // mayDecide, but in tests
}

// Listen makes the socket for the spool below root, and the directory for it.
// The caller holds the spool's lock, so a socket that is there is of a daemon
// that was killed.
func Listen(root string) (*Listener, error) {
	dir := filepath.Join(root, dirName)
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w; make it, owned by the user that runs the daemon (install -d -m 0750 -o USER)", dir, err)
	}
	link := filepath.Join(dir, linkName)
	if run := runtimeDir(); run != "" {
		if err := relink(link, run); err != nil {
			return nil, fmt.Errorf("%s: %w", link, err)
		}
		// What a daemon without one left would be found first.
		if err := removeIf(filepath.Join(dir, socketName), fs.ModeSocket); err != nil {
			return nil, err
		}
		dir = run
	} else if err := removeIf(link, fs.ModeSymlink); err != nil {
		return nil, err
	}
	if err := removeIf(filepath.Join(dir, socketName), fs.ModeSocket); err != nil {
		return nil, err
	}
	l := &Listener{dir: dir, room: make(chan struct{}, maxConnections), others: make(chan struct{}, maxConnections), privileged: mayDecide}
	err := through(dir, func(path string) error {
		u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		u.SetUnlinkOnClose(false) // its path is of this moment
		l.Listener = u
		return os.Chmod(path, 0o660)
	})
	if err != nil {
		if l.Listener != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("the socket in %s: %w", dir, err)
	}
	return l, nil
}

// relink has link point to target.
func relink(link, target string) error {
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	if err := removeIf(link, fs.ModeSymlink); err != nil {
		return err
	}
	return os.Symlink(target, link)
}

// removeIf removes what is of a kind; none there is no error.
func removeIf(path string, kind fs.FileMode) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != kind:
		return fmt.Errorf("%s is in the place of the daemon's own; move it away", path)
	}
	return os.Remove(path)
}

// Close closes and removes the socket.
func (l *Listener) Close() error {
	err := removeIf(filepath.Join(l.dir, socketName), fs.ModeSocket)
	return errors.Join(l.Listener.Close(), err)
}

// peer is one connection, and who has the other end.
type peer struct {
	net.Conn
	uid   uint32
	leave func()
}

func (p *peer) Close() error {
	p.leave()
	return p.Conn.Close()
}

// Accept implements net.Listener. As many as there is room for are served at
// once. Root and the daemon's user wait for that, and never for others; others
// are turned away, so that they can't fill what is waited in.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		room := l.room
		if !l.privileged(uid) {
			room = l.others
		}
		if err != nil || room == l.others && len(room) == cap(room) { // only this loop fills it
			_ = c.Close() // it is gone already, or turned away
			continue
		}
		room <- struct{}{}
		return &peer{c, uid, sync.OnceFunc(func() { <-room })}, nil
	}
}

// peerUID is who connected, by the kernel's word.
func peerUID(c net.Conn) (uint32, error) {
	cred, err := peerOf(c)
	return cred.Uid, err
}

// peerOf is who has the other end (SO_PEERCRED, unix(7)).
func peerOf(c net.Conn) (unix.Ucred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return unix.Ucred{}, errors.ErrUnsupported
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return unix.Ucred{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return unix.Ucred{}, err
	}
	return *cred, nil
}
