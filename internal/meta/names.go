package meta

import (
	"strconv"
	"strings"

	"idenfy-batch/internal/drop"
	"idenfy-batch/sidecar"
)

// badFileName returns what keeps name from being a plain file name, or "".
func badFileName(name string) string {
	switch {
	case strings.ContainsAny(name, `/\`):
		return "has a separator in it"
	case name == "." || name == "..":
		return "means a directory"
	case len(name) > 255:
		return "is longer than 255 bytes"
	case name == Name || sidecar.IsOwn(name):
		return "means a file that is no image"
	case drop.Temporary(name):
		return "is the name of an upload in progress"
	default:
		return drop.CleanName(name)
	}
}

// Show returns a name from outside as it may stand in a message or on a
// terminal: quoted when there is anything in it that could do harm there.
func Show(name string) string {
	if drop.CleanName(name) == "" {
		return name
	}
	return strconv.Quote(name)
}

func showAll(names []string) string {
	shown := make([]string, len(names))
	for i, n := range names {
		shown[i] = Show(n)
	}
	return strings.Join(shown, ", ")
}
