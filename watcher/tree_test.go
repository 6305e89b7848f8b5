package watcher_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
	"idenfy-batch/watcher"
)

// The rule holds for sub-folders too, of which no event tells: they may grow,
// be open, and hold temporary names.
func TestSubFolders(t *testing.T) {
	for name, hold := range map[string]func(in *inbox) (end func() error){
		"grows": func(in *inbox) func() error {
			go func() {
				for range 40 {
					time.Sleep(3 * time.Second)
					in.write("case/originals", "p1.tif", bytes.Repeat([]byte("x"), int(time.Now().Unix()%10_000)))
				}
			}()
			return func() error { return nil }
		},
		"open": func(in *inbox) func() error {
			f, err := os.OpenFile(filepath.Join(in.dir, "case/originals/p1.tif"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			return f.Close
		},
		"temporary name": func(in *inbox) func() error {
			in.write("case/originals/more", "p2.tif.filepart", []byte("x"))
			return func() error { return os.RemoveAll(filepath.Join(in.dir, "case/originals/more")) }
		},
		"directory of an upload": func(in *inbox) func() error {
			in.write("case/originals/.~tmp~", "p2.tif", []byte("x"))
			return func() error { return os.RemoveAll(filepath.Join(in.dir, "case/originals/.~tmp~")) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(in *inbox) {
				in.fill("case")
				in.write("case/originals", "p1.tif", []byte("page"))
				end := hold(in)
				in.hint("case")
				in.want("held", in.after(120*time.Second))
				if err := end(); err != nil {
					t.Fatal(err)
				}
				in.want("free", in.after(25*time.Second), "case")
			})
		})
	}
}

// Too many entries, and too deep a tree, are invalid, wherever they lie and
// whatever their names are.
func TestTooMuch(t *testing.T) {
	for name, fill := range map[string]func(in *inbox){
		"in a sub-folder": func(in *inbox) {
			for n := range 70 {
				in.write("case/originals", fmt.Sprintf("p%d.tif", n), nil)
			}
		},
		"like records": func(in *inbox) {
			for n := range 200 {
				in.write("case", fmt.Sprintf("result.%d.json", n), nil)
			}
		},
		"deep": func(in *inbox) { in.write("case/"+strings.Repeat("d/", 200)+"d", "x", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(in *inbox) {
				in.fill("case")
				in.remove("FACE.jpg") // so it is not complete
				fill(in)
				in.hint("case")
				in.want("invalid", in.after(6*time.Second), "case")
				if in.got[0].Expired {
					t.Error("expired")
				}
			})
		})
	}
}

// An error of reading that passes, such as a lease of Samba's, is looked at
// again soon, however far apart rescans are.
func TestPassingReadError(t *testing.T) {
	bubble(t, func(c *watcher.Config) { c.Rescan = time.Hour }, func(in *inbox) {
		in.fill("case")
		at := filepath.Join(in.dir, "case", "FACE.jpg")
		holder, err := os.OpenFile(at, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer holder.Close()
		if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			t.Skip(err)
		}
		in.hint("case")
		in.want("under a lease", in.after(7*time.Second))
		if err := holder.Close(); err != nil {
			t.Fatal(err)
		}
		in.want("without", in.after(5*time.Second), "case")
	})
}

// A folder that keeps changing is warned of, and ends.
func TestNeverQuiet(t *testing.T) {
	for name, change := range map[string]func(in *inbox, n int) error{
		"a log": func(in *inbox, n int) error {
			in.write("case/logs", "scan.log", bytes.Repeat([]byte("x"), n%100)) // another size tells even within one tick of the file system
			return nil
		},
		"touched": func(in *inbox, n int) error {
			return os.Chtimes(filepath.Join(in.dir, "case", "FACE.jpg"), time.Unix(int64(n), 0), time.Unix(int64(n), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(c *watcher.Config) { c.WarnAfter, c.FailAfter = 10*time.Minute, time.Hour }, func(in *inbox) {
				in.fill("case")
				in.write("case/logs", "scan.log", nil)
				in.hint("case")
				n := 0
				// Whoever changes it is who takes it away, so that the one is not in
				// the middle of the other.
				pass := func(d time.Duration) (names []string) {
					for end := time.Now().Add(d); len(names) == 0 && time.Now().Before(end); n++ {
						if err := change(in, n); err != nil {
							t.Fatal(err)
						}
						names = in.after(min(3*time.Second, time.Until(end)))
					}
					return names
				}
				in.want("young", pass(50*time.Minute))
				if !slices.ContainsFunc(in.ev.all(), func(s string) bool {
					return strings.HasPrefix(s, "case waits for 10m") && strings.HasSuffix(s, "still_changing")
				}) {
					t.Errorf("reports: %v", in.ev.all())
				}
				in.want("too old", pass(10*time.Minute+10*time.Second), "case")
				want := map[string]string{"a log": "logs/scan.log", "touched": "FACE.jpg"}[name]
				if a := in.got[0]; !a.Expired || a.Changing != want {
					t.Errorf("arrival %+v", a)
				}
			})
		})
	}
}

// One whose last file comes when it is nearly too old is not taken from its
// uploader.
func TestCompleteJustInTime(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		in.remove("FACE.jpg")
		in.hint("case")
		in.want("young", in.after(24*time.Hour-time.Second))
		in.fill("case")
		in.hint("case")
		in.want("complete", in.after(time.Minute), "case")
		if in.got[0].Expired {
			t.Error("it is expired")
		}
	})
}

// A file that is open for writing for ever.
func TestOpenForEver(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		in.write("case", "scan.log", nil)
		f, err := os.OpenFile(filepath.Join(in.dir, "case", "scan.log"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		in.hint("case")
		in.want("young", in.after(24*time.Hour-time.Minute))
		in.want("too old", in.after(2*time.Minute), "case")
		if a := in.got[0]; !a.Expired || a.Changing != "scan.log" {
			t.Errorf("arrival %+v", a)
		}
	})
}

// A directory that may not be read is named.
func TestUnreadableBelow(t *testing.T) {
	r := watcher.Unreadable(errors.Join(&drop.BelowError{Dir: "originals/a\nb", Err: unix.EACCES}))
	if want := `unreadable: fix with chmod -R g+rX on "originals/a\nb", in an inbox whose group the daemon shares`; r.Message != want {
		t.Errorf("%s", r.Message)
	}
}

// A copy with holes in the place of zeros, as rsync -S makes it, of an image
// with zeros behind its end.
func TestSparseCopy(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		at := filepath.Join(in.dir, "case", "FRONT.jpg")
		if err := os.Truncate(at, 1<<20); err != nil {
			t.Fatal(err)
		}
		in.want("whole, with a hole behind its end", in.after(time.Minute), "case")
		in.fill("part")
		at = filepath.Join(in.dir, "part", "FRONT.jpg")
		hole := bytes.Clone(front)
		f, err := os.Create(at)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, part := range [][2]int{{0, 8 << 10}, {24 << 10, len(hole)}} {
			if _, err := f.WriteAt(hole[part[0]:part[1]], int64(part[0])); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		in.want("a hole in the image", in.after(time.Minute))
	})
}
