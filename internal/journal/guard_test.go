package journal

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A look at a large database that fails is told, and made again.
func TestGuardLooksAgain(t *testing.T) {
	path := t.TempDir() + "/" + Name
	synctest.Test(t, func(t *testing.T) {
		var told []string
		j := &Journal{path: path}
		j.Tell(func(err error) { told = append(told, err.Error()) })
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go j.guard(ctx)
		time.Sleep(guardAfter + guardAgain/2)
		synctest.Wait()
		if len(told) != 1 || !strings.Contains(told[0], "input/output error") || j.unsound.Load() != nil {
			t.Errorf("it can't be opened: %q, %v", told, j.unsound.Load())
		}
		check(t, os.WriteFile(path, []byte(strings.Repeat("no database", 1000)), 0o600))
		time.Sleep(guardAgain)
		synctest.Wait()
		if j.unsound.Load() == nil {
			t.Error("it was not looked at again")
		}
	})
}
