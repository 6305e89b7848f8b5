package daemon

import (
	"context"
	"errors"
	"sync"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/spool"
	"idenfy-batch/watcher"
)

// lanes are the inboxes that are watched, each by a watcher of its own. All hand
// on by one channel without room: Go's senders queue in the order of their
// coming, so each inbox that has a ready folder is served in turn, however many
// the others have.
type lanes struct {
	d        *daemon
	ctx      context.Context // of all of them
	arrivals chan drop.Arrival
	watches  watcher.Watches
	running  sync.WaitGroup

	mu   sync.Mutex // of what is below
	list map[spool.Place]*lane
	errs []error
	over bool // no more are opened
}

// lane is one of them.
type lane struct {
	dir     string
	changes chan watcher.Settings // has room for one
	doubts  chan struct{}         // likewise
	stop    context.CancelFunc
	ended   chan struct{}
	begun   bool // it is watched, or can't be
}

// openLanes begins to watch all inboxes of a configuration. The arrivals are
// closed when all has ended: with Options.Once by itself, else with ctx.
func (d *daemon) openLanes(ctx context.Context, cfg *config.Config) *lanes {
	l := &lanes{d: d, ctx: ctx, arrivals: make(chan drop.Arrival), list: map[spool.Place]*lane{}}
	d.lanes.Store(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range cfg.Drops() {
		l.open(spool.InboxNamed(in.Name), in.Path, watcherSettings(cfg, in))
	}
	if !d.o.Once { // until then others may come
		l.running.Go(func() {
			<-ctx.Done()
			l.mu.Lock()
			l.over = true
			l.mu.Unlock()
		})
	}
	go func() {
		l.running.Wait()
		close(l.arrivals)
	}()
	return l
}

// open begins to watch an inbox.
func (l *lanes) open(p spool.Place, dir string, set watcher.Settings) {
	ctx, stop := context.WithCancel(l.ctx)
	n := &lane{dir: dir, changes: make(chan watcher.Settings, 1), doubts: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	l.list[p] = n
	l.running.Go(func() {
		defer close(n.ended)
		source := watcher.NewInotify(dir, &l.watches)
		err := watcher.Run(ctx, watcher.Config{
			Inbox: p.InboxName(), Dir: dir, Once: l.d.o.Once,
			Mend:     func(name string) error { return l.d.spool.Mend(ctx, p, name) },
			Proof:    func() error { return l.d.spool.Takes(p) },
			Doubts:   n.doubts,
			Settings: set, Changes: n.changes,
		}, source, l.arrivals, l.d.emit)
		if err = errors.Join(err, source.Close()); err != nil {
			l.mu.Lock()
			l.errs = append(l.errs, err)
			l.mu.Unlock()
		}
	})
}

// follow brings a new configuration into force: inboxes that are not in it, or
// that lie elsewhere by it, are watched no longer, before others are. Nobody
// hands on by a path that the spool doesn't have any more.
func (l *lanes) follow(cfg *config.Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	paths := cfg.Spool()
	for p, n := range l.list {
		if n.dir != paths[p] {
			n.stop()
			l.mu.Unlock() // it may have an error to leave
			<-n.ended
			l.mu.Lock()
			delete(l.list, p)
			// What was said of it is not true of another directory.
			l.d.emit(events.InboxLeft{Inbox: p.InboxName()})
		}
	}
	if l.over { // by now
		return
	}
	l.d.spool.SetInboxes(paths)
	for _, in := range cfg.Drops() {
		p := spool.InboxNamed(in.Name)
		n := l.list[p]
		if n == nil {
			l.open(p, in.Path, watcherSettings(cfg, in))
			continue
		}
		select {
		case <-n.changes: // one that the watcher has not come to
		default:
		}
		n.changes <- watcherSettings(cfg, in)
	}
}

// begun notes that an inbox is watched, or can't be, and tells whether that holds
// for all of them.
func (l *lanes) begun(p spool.Place) (all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.list[p]; n != nil {
		n.begun = true
	}
	for _, n := range l.list {
		if !n.begun {
			return false
		}
	}
	return true
}

// refused has the watcher of an inbox look why nothing could be taken from it.
func (l *lanes) refused(p spool.Place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.list[p]; n != nil {
		select {
		case n.doubts <- struct{}{}:
		default: // it is about to
		}
	}
}

// wait returns, once all have ended, what went wrong.
func (l *lanes) wait() error {
	l.running.Wait()
	return errors.Join(l.errs...)
}
