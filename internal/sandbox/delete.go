package sandbox

import (
	"net/http"
	"time"
)

// ScriptDeletions is Script of the deletions that are asked for, whichever the
// session is.
func (s *Sandbox) ScriptDeletions(steps ...Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletions = append(s.deletions, steps...)
}

// delete deletes a session, as POST /api/v2/delete. What is answered for one that
// is deleted already, or not known, isn't documented.
func (s *Sandbox) delete(w http.ResponseWriter, r *http.Request) {
	scanRef, ok := s.scanRef(w, r)
	if !ok {
		return
	}
	var step Step
	s.mu.Lock()
	if len(s.deletions) > 0 {
		step, s.deletions = s.deletions[0], s.deletions[1:]
	}
	s.mu.Unlock()
	select {
	case <-time.After(step.Latency):
	case <-s.closed:
	}
	status := "unknown"
	if step.processes() {
		status = s.erase(scanRef)
	}
	switch {
	case s.instead(w, r, step):
	case status == "unknown":
		s.fail(w, http.StatusNotFound, "BAD_VALUE", "Bad value for 'scanRef'")
	case status == "ACTIVE":
		s.fail(w, http.StatusBadRequest, "PARTNER_ERROR", "Token has not expired yet.")
	case s.afterwards(w, r, step):
	default:
		s.count("delete 200")
		w.WriteHeader(http.StatusOK) // with an empty body
	}
}

// erase deletes a session that is over, and returns the status that it had.
func (s *Sandbox) erase(scanRef string) (was string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, ok := s.refs[scanRef]
	if !ok {
		return "unknown"
	}
	t := s.seen(token)
	was = t.now()
	switch was {
	case "ACTIVE":
	case "EXPIRED":
		t.status = "EXPIRED-DELETED"
		s.report.Deleted++
	case "DELETED", "EXPIRED-DELETED":
	default:
		t.status = "DELETED"
		s.report.Deleted++
	}
	return was
}
