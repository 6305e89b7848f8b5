package receipt

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

// What a result says is for whoever runs the daemon: it may name other folders,
// and what iDenfy answered, which may name the person. So of what the daemon and
// iDenfy said the uploader gets the code, and words from here. What the look at
// his own folder found he gets as it is: it cites names of his files, and of
// meta.yaml no value; but for a key that is unknown, which may be any text.

// ofDaemon holds words for the codes of what the daemon says.
var ofDaemon = map[string]string{
	"may_have_been_accepted": "whether iDenfy took it is not certain",
	"not_writable":           "nothing can be written into the folder: upload it without special modes, and without files that are called as the daemon's own (result.json)",
	"changed_in_work":        "it was changed while it was being sent: upload it whole, and leave it alone then",
	"withheld":               "it was changed while it was being sent, and the transfer was broken off",
	"token_expired":          "the session's token expired, and the documents were not taken: upload it again with a new authToken",
	"token_lost":             "no clear answer came, and its session can't be used any more",
	"token_used":             "another folder that had this authToken was accepted: each folder needs a token of its own",
	"token_undecided":        "another folder that had this authToken may have been accepted: each folder needs a token of its own",
	"content_used":           "another folder with this clientId and these images was accepted",
	"content_undecided":      "another folder with this clientId and these images may have been accepted",
	"sent_before":            "it was accepted before, and nothing was sent now",
	"gave_up":                "it was tried for too long, and no answer was of use",
	"settled_by_status":      "no clear answer came, and iDenfy says that the documents were taken",
	"settled_by_verdict":     "no clear answer came, and iDenfy says that the documents were taken",
	"decided_by_person":      "a person decided it",
	"token_in_use":           "another folder with the same authToken, or clientId and images, comes first",
	"session_active":         "iDenfy says that this clientId has an active session, which has to end first",
	"more":                   "and there are more reasons",
}

// ofAPI holds words for iDenfy's identifiers that a folder can meet.
var ofAPI = map[string]string{ //nolint:gosec // no credentials: words
	"BAD_VALUE":        "iDenfy refuses a value in it",
	"MISSING_VALUE":    "iDenfy misses a value, or an image",
	"ENCODING_ERROR":   "iDenfy can't read one of the images",
	"JSON_ERROR":       "iDenfy can't read the submission",
	"TOKEN_NOT_VALID":  "the authToken is unknown, was used before, or has expired: upload it again with a new one",
	"VALIDATION_ERROR": "iDenfy refuses a value in it",
}

var codeForm = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

// mostReasons bounds how many reasons a receipt lists.
const mostReasons = 50

// mostText bounds a message and a field, in bytes.
const mostText = 600

// reasons returns the reasons of a result as its uploader may have them.
func reasons(list []sidecar.Reason) (told []sidecar.ReceiptReason) {
	for _, r := range list[:min(len(list), mostReasons)] {
		w := sidecar.ReceiptReason{Code: r.Code}
		if !codeForm.MatchString(r.Code) {
			w.Code = "other"
		}
		switch r.Source {
		case sidecar.FromPreflight:
			w.Message, w.Field = preflight(r.Code, r.Message, r.Field)
		case sidecar.FromAPI:
			w.Message = cmp.Or(ofAPI[r.Code], "iDenfy refuses it")
		default:
			w.Message = cmp.Or(ofDaemon[r.Code], "whoever runs the service can tell more")
		}
		told = append(told, w)
	}
	return told
}

// waits returns what a folder waits for as its uploader may have it.
func waits(list []meta.Reason) (told []sidecar.ReceiptReason) {
	for _, r := range list[:min(len(list), mostReasons)] {
		w := sidecar.ReceiptReason{Code: r.Code}
		w.Message, w.Field = preflight(r.Code, r.Message, meta.Show(r.Field))
		told = append(told, w)
	}
	return told
}

func preflight(code, message, field string) (told, about string) {
	switch code {
	case "unknown_key":
		before, _, _ := strings.Cut(message, "unknown key ")
		if strings.Contains(before, "line ") && len(before) < 40 {
			return before + "there is a key that is not known", ""
		}
		return meta.Name + " has a key that is not known", ""
	case "missing_file":
		message += " is missing"
	}
	return shorten(message), shorten(field)
}

func shorten(s string) string {
	if len(s) <= mostText {
		return s
	}
	n := mostText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// ends says for each outcome what became of a folder, and what is to be done.
var ends = map[sidecar.Outcome]string{
	sidecar.Accepted:   "iDenfy took the documents for processing. Nothing is to be done.",
	sidecar.Rejected:   "It was not accepted. Correct what the reasons say, and upload the whole folder again.",
	sidecar.Invalid:    "Nothing of it was sent. Correct what the reasons say, and upload the whole folder again.",
	sidecar.Incomplete: "It was not complete in time, and nothing of it was sent. Upload the whole folder again.",
	sidecar.GaveUp:     "It could not be sent for too long. Whoever runs the service can have it tried again; ask before you upload it again.",
	sidecar.Unknown:    "It may or may not have been taken, and a person looks into it. Do not upload it again.",
}

const (
	works   = "It is complete, and being worked on. Nothing is to be done."
	putBack = "It had ended, and a person put it into the inbox again. Nothing is to be done."
	ignored = "These lie in the inbox itself, and nothing is done with them. Upload each submission as a folder of its own, with its files in it, and remove these."
)

// waitsFor says since when a folder waits, and for what.
func waitsFor(since time.Time, list []sidecar.ReceiptReason) string {
	what := "it is not complete"
	if len(list) > 0 {
		what = list[0].Message
	}
	if more := len(list) - 1; more > 0 {
		what += fmt.Sprintf(" (and %d reasons more)", more)
	}
	return fmt.Sprintf("Since %s UTC it waits: %s. Put that right in the same folder; it is taken by itself then.", since.UTC().Format("2006-01-02 15:04"), what)
}
