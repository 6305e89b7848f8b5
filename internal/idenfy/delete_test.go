package idenfy_test

import (
	"errors"
	"testing"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/sandbox"
)

// A session is deleted once it was used or has expired, and not while it lives.
func TestDelete(t *testing.T) {
	s, c := api(t)
	ref := sandbox.NewScanRef()
	r := passport()
	s.Issue(r.Token, ref)
	err := c.Delete(t.Context(), ref)
	if e, ok := errors.AsType[*idenfy.Error](err); !ok || e.Class != idenfy.Rejected || e.Identifier != "PARTNER_ERROR" {
		t.Errorf("while it lives: %v", err)
	}
	if _, err := c.Process(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if _, word, err := c.Status(t.Context(), ref); err != nil || word != "DELETED" {
		t.Errorf("afterwards it is %q, %v", word, err)
	}
	err = c.Delete(t.Context(), sandbox.NewScanRef())
	if e, ok := errors.AsType[*idenfy.Error](err); !ok || e.Class != idenfy.Rejected {
		t.Errorf("of one that is not known: %v", err)
	}
	if n := s.Report().Deleted; n != 1 {
		t.Errorf("%d were deleted", n)
	}
	for _, fault := range []struct {
		step sandbox.Step
		want idenfy.Class
	}{
		{sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED"}, idenfy.ServiceFault}, {sandbox.Step{Status: 503}, idenfy.ServerError},
		{sandbox.Step{Fault: sandbox.LoseAnswer}, idenfy.NoAnswer},
	} {
		s.ScriptDeletions(fault.step)
		if e, ok := errors.AsType[*idenfy.Error](c.Delete(t.Context(), ref)); !ok || e.Class != fault.want {
			t.Errorf("%+v: %v", fault.step, e)
		}
	}
}
