package durable

import "sync/atomic"

// Op is a step of this package that can fail, named after its system call.
type Op string

// The steps.
const (
	OpRemove  Op = "unlinkat"           // Remove; WriteFile: of what a crash left
	OpCreate  Op = "openat"             // WriteFile: the new file
	OpWrite   Op = "write"              // WriteFile: its data
	OpChmod   Op = "fchmod"             // WriteFile: its mode
	OpSync    Op = "fsync"              // WriteFile, Keep, KeepAll: of a file
	OpBegin   Op = "sync_file_range"    // KeepAll: begun, before fsync
	OpRename  Op = "renameat"           // WriteFile: over the old file
	OpSyncDir Op = "fsync of directory" // WriteFile, Rename, Mkdir, Remove
	OpMove    Op = "renameat2"          // Rename
	OpCommit  Op = "commit"             // Commit
)

var injected atomic.Pointer[func(op Op, path string, do func() error) error]

// Inject makes every step go through f, which calls do, or not, and returns
// what the step is to return. path tells what the step is about. It is for
// tests and benchmarks: what fails before or after it was done, what a machine
// without any sync would give. nil ends it.
//
// f is called from several goroutines.
func Inject(f func(op Op, path string, do func() error) error) {
	if f == nil {
		injected.Store(nil)
		return
	}
	injected.Store(&f)
}

func step(op Op, path string, do func() error) error {
	if f := injected.Load(); f != nil {
		return (*f)(op, path, do)
	}
	return do()
}

// Commit makes do, the commit of the database at path, a step that can be made
// to fail. It is durable by itself.
func Commit(path string, do func() error) error { return step(OpCommit, path, do) }
