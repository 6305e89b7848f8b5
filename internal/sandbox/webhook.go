package sandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// Webhooks says where webhooks are sent, and what. The zero value sends none.
type Webhooks struct {
	URL string // that they are posted to
	Key string // that signs them
	// Script says what is sent of a session once it was processed; nil: one
	// automatic result, APPROVED and final.
	Script func(scanRef string) []Hook
	// Tries and Every say how a hook is sent again that is not answered 2xx; 0:
	// ten times, ten seconds apart, as documented at most.
	Tries int
	Every time.Duration
}

// Hook is one webhook.
type Hook struct {
	After        time.Duration // the one before, or the processing
	Overall      string        // empty: APPROVED
	Final        bool
	Type         string // header Idenfy-Event-Type; empty: IDENTIFICATION_AUTO_FINISHED
	Body         []byte // in place of the usual one
	Copies       int    // sent so many times more
	BadSignature bool
}

// Webhook sets where and how webhooks are sent for sessions that are processed
// from then on.
func (s *Sandbox) Webhook(w Webhooks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = w
}

// announce sends what is scripted for a session that was processed. The lock is
// held.
func (s *Sandbox) announce(token, scanRef string) {
	w := s.hooks
	if w.URL == "" || scanRef == "" {
		return
	}
	script := []Hook{{Final: true}}
	if w.Script != nil {
		script = w.Script(scanRef)
	}
	go func() {
		for _, h := range script {
			select {
			case <-time.After(h.After):
			case <-s.closed:
				return
			}
			if h.Overall == "" {
				h.Overall = "APPROVED"
			}
			if h.Body == nil { // once: what is sent again is the same
				h.Body = HookBody(scanRef, h.Overall, h.Final)
			}
			s.SetStatus(token, h.Overall)
			for range h.Copies + 1 {
				s.deliver(w, h)
			}
		}
	}()
}

// deliver sends a hook until it is answered 2xx, or its tries are over.
func (s *Sandbox) deliver(w Webhooks, h Hook) {
	tries, every := w.Tries, w.Every
	if tries == 0 {
		tries = 10
	}
	if every == 0 {
		every = 10 * time.Second
	}
	signature := Sign(h.Body, w.Key)
	if h.BadSignature {
		signature = Sign(h.Body, w.Key+"?")
	}
	for try := range tries {
		if try > 0 {
			select {
			case <-time.After(every):
			case <-s.closed:
				return
			}
		}
		if post(w.URL, h, signature)/100 == 2 {
			return
		}
	}
}

// hookClient gives up as early as iDenfy does.
var hookClient = &http.Client{Timeout: 10 * time.Second}

func post(url string, h Hook, signature string) (status int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(h.Body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idenfy-Signature", signature)
	req.Header.Set("Idenfy-Event-Type", h.Type)
	if h.Type == "" {
		req.Header.Set("Idenfy-Event-Type", "IDENTIFICATION_AUTO_FINISHED")
	}
	res, err := hookClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<16)) // so that the connection is used again
	return res.StatusCode
}

// Sign returns the value of Idenfy-Signature.
func Sign(body []byte, key string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// HookBody returns the body of a webhook, as iDenfy's pages describe it, with an
// invented person.
func HookBody(scanRef, overall string, final bool) []byte {
	now := time.Now()
	fraud := []string{}
	if overall == "SUSPECTED" {
		fraud = append(fraud, "DOC_PRINT_SPOOFED")
	}
	body, _ := json.Marshal(map[string]any{ // of plain values, which can't fail
		"final": final, "platform": "API",
		"status": map[string]any{
			"overall": overall, "autoDocument": "DOC_VALIDATED", "autoFace": "FACE_MATCH", "manualDocument": nil, "manualFace": nil,
			"fraudTags": fraud, "mismatchTags": []string{}, "suspicionReasons": []string{}, "denyReasons": []string{}, "additionalSteps": nil,
		},
		"data": map[string]any{
			"docFirstName": "JANE-SAMPLE", "docLastName": "DOE-SAMPLE", "docNumber": "SAMPLE-0042", "docDob": "1990-01-02", "docSex": "FEMALE",
			"docType": "ID_CARD", "docIssuingCountry": "LT", "address": nil,
		},
		"fileUrls": map[string]any{"FRONT": "https://example.invalid/front.jpg"}, "AML": nil, "LID": nil,
		"scanRef": scanRef, "externalRef": nil, "clientId": "sample-client", "companyId": "sample", "beneficiaryId": nil,
		"startTime": now.Add(-time.Minute).Unix(), "finishTime": now.Unix(), "clientIp": "192.0.2.7",
	})
	return body
}
