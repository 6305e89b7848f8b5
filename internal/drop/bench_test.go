package drop_test

import (
	"os"
	"path/filepath"
	"testing"

	"idenfy-batch/internal/drop"
)

// BenchmarkLook is what a rescan does for each waiting folder.
func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	for _, name := range []string{"case/FRONT.jpg", "case/meta.yaml"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	parent, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer parent.Close()
	b.ReportAllocs()
	for b.Loop() {
		root, err := drop.Open(parent, "case")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := drop.List(root, 64, none); err != nil {
			b.Fatal(err)
		}
		if err := root.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
