package verdict

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

// Bounds of what is kept of an event. What iDenfy sends stays far below.
const (
	mostWord = 64 // characters
	mostList = 100
)

// parse makes an event of a body with a good signature. Every field of it may
// be missing, null, or of another type; words are kept as they are. What has no
// scanRef is of no session. The body is kept if all is to be, or if it can't be
// read: then nothing else is left of it.
func parse(body []byte, kind string, full bool, now time.Time) journal.Event {
	sum := sha256.Sum256(body)
	e := journal.Event{Said: sidecar.VerdictEvent{
		SHA256: hex.EncodeToString(sum[:]), Received: sidecar.Time{Time: now}, By: sidecar.ByWebhook, Type: cleanWord(kind),
	}}
	top := fields(body)
	if full || top == nil {
		e.Body = body
	}
	if e.ScanRef = word(top["scanRef"]); !idenfy.IsScanRef(e.ScanRef) {
		e.ScanRef = ""
	} else if full {
		e.Said.Body = sidecar.BodyName(e.Said.SHA256)
	}
	if n, err := strconv.ParseFloat(word(top["finishTime"]), 64); err == nil && n > 0 && n < 1<<33 {
		e.Said.Finished = sidecar.Time{Time: time.Unix(int64(n), 0)}
	}
	status := fields(top["status"])
	e.Said.Said = said(status)
	e.Said.Overall = word(status["overall"])
	e.Said.Final = word(top["final"]) == "true" && e.Said.Overall != ""
	return e
}

// said reads the checks and the tags, which webhook and status request name
// alike.
func said(from map[string]json.RawMessage) sidecar.Said {
	return sidecar.Said{
		AutoDocument: word(from["autoDocument"]), ManualDocument: word(from["manualDocument"]),
		AutoFace: word(from["autoFace"]), ManualFace: word(from["manualFace"]),
		FraudTags: words(from["fraudTags"]), MismatchTags: words(from["mismatchTags"]),
		SuspicionReasons: words(from["suspicionReasons"]), DenyReasons: words(from["denyReasons"]),
	}
}

// over are the words after which nothing more is to come: the answer to a
// status request doesn't say it otherwise.
var over = map[string]bool{
	"APPROVED": true, "DENIED": true, "SUSPECTED": true, "EXPIRED": true,
	"DELETED": true, "ARCHIVED": true, "EXPIRED-DELETED": true,
}

// answered makes an event of the answer to a status request. The same answer
// twice is one event.
func answered(scanRef string, s idenfy.Standing, now time.Time) journal.Event {
	sum := sha256.Sum256(append([]byte("status "+scanRef+"\n"), s.Body...))
	e := journal.Event{ScanRef: scanRef, Said: sidecar.VerdictEvent{
		SHA256: hex.EncodeToString(sum[:]), Received: sidecar.Time{Time: now}, By: sidecar.ByStatus,
	}}
	e.Said.Said = said(fields(s.Body))
	e.Said.Overall, e.Said.Final = s.Word, over[s.Word]
	return e
}

// fields reads an object; anything else has none.
func fields(data []byte) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(data, &m) != nil {
		return nil
	}
	return m
}

// word reads text, a number or a truth value as text; anything else is empty.
func word(data json.RawMessage) string {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] == '{' || data[0] == '[' || string(data) == "null" {
		return ""
	}
	text := string(data)
	if data[0] == '"' && json.Unmarshal(data, &text) != nil {
		return ""
	}
	return cleanWord(text)
}

func words(data json.RawMessage) []string {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		if one := word(data); one != "" {
			return []string{one}
		}
		return nil
	}
	var out []string
	for _, e := range list {
		if w := word(e); w != "" && len(out) < mostList {
			out = append(out, w)
		}
	}
	return out
}

// cleanWord takes out what could do harm on a terminal, and what is too long.
func cleanWord(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�")))
	if r := []rune(s); len(r) > mostWord {
		s = string(r[:mostWord-1]) + "…"
	}
	return s
}
