package verify

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// word is a final verdict, by an entry of the ledger.
type word struct {
	sum, said string
	at        sidecar.Time
}

func wordOf(e *ledger.Entry) word { return word{e.SHA256, once(e.Verdict), e.At} }

// judge holds the final verdicts of a life in the ledger against those in the
// journal.
func (r *run) judge(k *known) {
	k.differs = nil
	finals := k.life.Verdict.Finals
	for _, w := range k.words {
		at := slices.IndexFunc(finals, func(f journal.Final) bool { return f.SHA256 == w.sum })
		if at < 0 {
			k.differs = append(k.differs, fmt.Sprintf("the ledger has the final verdict %s of %s, and the journal hasn't", w.said, stamp(w.at)))
			continue
		}
		if f := finals[at]; f.Verdict != w.said || !f.At.Equal(w.at.Time) {
			k.differs = append(k.differs, fmt.Sprintf("the journal has the final verdict %s of %s, and in the ledger that is %s of %s", meta.Show(f.Verdict), stamp(f.At), w.said, stamp(w.at)))
		}
	}
	if k.life.Verdict.Owner == k.id { // else it is held against the ledger with the life whose session it is
		for _, f := range finals {
			if !f.Other && !r.words[f.SHA256] && !slices.ContainsFunc(k.words, func(w word) bool { return w.sum == f.SHA256 }) {
				k.differs = append(k.differs, fmt.Sprintf("the journal has the final verdict %s of %s, and the ledger hasn't", meta.Show(f.Verdict), stamp(f.At)))
			}
		}
	}
	k.words, k.life.Verdict.Finals = nil, nil // they are as many as there ever were
}

func stamp(t sidecar.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// verdict holds the verdict.json in a folder against the journal.
func (r *run) verdict(k *known, dir *os.Root, p spool.Place, name string, gone deleted) error {
	if !k.row {
		return nil
	}
	data, err := readVerdict(dir)
	if err != nil {
		return err
	}
	if data == nil && k.life.Verdict.SHA256 == "" {
		return nil
	}
	if data == nil || sidecar.SumOf(data) != k.life.Verdict.SHA256 {
		var code, what string
		if data, code, what, err = r.compareVerdict(k.id, dir); err != nil {
			return err
		}
		if code != "" {
			r.found(code, k, string(p), name, "%s %s", sidecar.VerdictName, what)
			return nil
		}
	}
	return r.bodies(k, data, dir, p, name, gone)
}

// readVerdict returns the file, or nil when there is none.
func readVerdict(dir *os.Root) ([]byte, error) {
	data, err := drop.ReadFile(dir, sidecar.VerdictName, maxResult)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, drop.ErrNotPlain):
		return []byte{}, nil // which is no verdict
	}
	return data, err
}

// compareVerdict holds verdict.json against what the journal says by now. The
// daemon may be writing it: so the file has to be the same before that is read,
// and after it.
func (r *run) compareVerdict(id string, dir *os.Root) (data []byte, code, what string, err error) {
	const tries = 10 // else it changes all the time, which only its daemon does
	for range tries {
		if data, err = readVerdict(dir); err != nil {
			return nil, "", "", err
		}
		w, err := r.wordNow(id)
		if err != nil {
			return nil, "", "", err
		}
		var v sidecar.Verdict
		isOne := json.Unmarshal(data, &v) == nil && v.Schema == sidecar.VerdictSchema
		again, err := readVerdict(dir)
		if err != nil {
			return nil, "", "", err
		}
		if !bytes.Equal(data, again) || (data == nil) != (again == nil) {
			continue
		}
		if w.Late { // it is written anew by the daemon
			return nil, "", "", nil
		}
		code, what := verdictDiffers(data, &v, isOne, id, &w)
		return data, code, what, nil
	}
	return nil, "", "", nil
}

func (r *run) wordNow(id string) (journal.Word, error) {
	lives, err := r.Reader.Lives(r.ctx, journal.Lives{ID: id, Most: 1})
	if err != nil || len(lives) == 0 {
		return journal.Word{}, err
	}
	return lives[0].Verdict, nil
}

// verdictDiffers says in what a verdict.json is not as the journal has it; data
// is nil when there is none.
func verdictDiffers(data []byte, v *sidecar.Verdict, isOne bool, id string, w *journal.Word) (code, what string) {
	want := w.Whole
	switch {
	case want == nil && data == nil:
		return "", ""
	case want == nil:
		return "file_added", "was put into the folder: the journal knows of no verdict"
	case data == nil:
		return "file_removed", "is not there any more: it said " + cmp.Or(meta.Show(want.Overall), "nothing yet")
	case !isOne:
		return "verdict_altered", "was altered: it can't be read any more"
	}
	if v.ID == id || v.ID == w.Owner { // by what was known of the session when it was written
		want.ID = v.ID
	}
	if len(v.Events) >= journal.MostEvents { // of a journal that was made anew from it, which has no more of them
		want.Omitted = max(want.Omitted, v.Omitted)
	}
	is, err := sidecar.EncodeVerdict(want)
	if err == nil && bytes.Equal(is, data) {
		return "", ""
	}
	diff, err := differences(data, is)
	if err != nil || diff == "" {
		return "verdict_altered", "was altered"
	}
	return "verdict_altered", "is not as the journal has it: " + diff
}

// bodies holds what iDenfy sent, where it is kept, against its SHA-256 in
// verdict.json, which is as it was written.
func (r *run) bodies(k *known, data []byte, dir *os.Root, p spool.Place, name string, gone deleted) error {
	var v sidecar.Verdict
	if data == nil { // there is none, or it is still to be written
		return nil
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	for i := range v.Events {
		e := &v.Events[i]
		if _, was := gone[e.Body]; was || e.Body == "" {
			continue
		}
		is, err := sidecar.OtherSum(dir, e.Body)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.found("file_removed", k, string(p), name, "%s is not there any more", meta.Show(e.Body))
		case err != nil && !errors.Is(err, drop.ErrNotPlain):
			return err
		case is != e.SHA256:
			r.found("verdict_altered", k, string(p), name, "%s was altered", meta.Show(e.Body))
		}
	}
	return nil
}
