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

// unshow is the reverse of Show.
func unshow(shown string) string {
	if name, err := strconv.Unquote(shown); err == nil && Show(name) == shown {
		return name
	}
	return shown
}

// Whole is the name that a folder was dropped with, of which cut is what there was
// room for, by what was shown of it.
func Whole(cut, shown string) string {
	if full := unshow(shown); strings.HasPrefix(full, cut) {
		return full
	}
	return cut
}

// FirstName is the name that counts for Defaults.ByFolder: of those that the folder
// had, the oldest first and as they were shown, or has now, the first that can be
// a clientId. So neither another name in failed (case-7.2) nor a rename makes it
// another person's.
func FirstName(had []string, now string) string {
	for _, shown := range had {
		if name := unshow(shown); clientForm.MatchString(name) {
			return name
		}
	}
	return now
}

func showAll(names []string) string {
	shown := make([]string, len(names))
	for i, n := range names {
		shown[i] = Show(n)
	}
	return strings.Join(shown, ", ")
}
