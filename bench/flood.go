package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"idenfy-batch/internal/sandbox"
)

const floodKey = "the-key-of-the-webhook"

// flood: good folders and signed webhooks by themselves, and beside a thousand
// connections that send a byte now and then, and a stream of webhooks that are
// not signed.
func (b *bench) flood() error {
	n := b.pick(200, 50)
	fmt.Printf("flood: %d folders and signed webhooks, by themselves and beside 1000 slow connections and 200 unsigned requests a second\n", n)
	var without, with, ratios []float64
	var calm, wild []time.Duration
	for i := range b.pick(5, 1) {
		alone, answers, err := b.besideFlood(fmt.Sprint("calm", i), n, false)
		if err != nil {
			return err
		}
		calm = append(calm, answers...)
		beside, answers, err := b.besideFlood(fmt.Sprint("flood", i), n, true)
		if err != nil {
			return err
		}
		wild = append(wild, answers...)
		without, with, ratios = append(without, alone.Seconds()), append(with, beside.Seconds()), append(ratios, beside.Seconds()/alone.Seconds())
	}
	slices.Sort(calm)
	slices.Sort(wild)
	fmt.Printf("  %-46s %8.2f s\n  %-46s %8.2f s\n", "by themselves, from the start to the last in done", median(without), "beside the flood", median(with))
	fmt.Printf("  %-46s %8d ms\n  %-46s %8d ms\n", "99% of signed webhooks are answered within", calm[len(calm)*99/100].Milliseconds(), "beside the flood", wild[len(wild)*99/100].Milliseconds())
	fmt.Printf("  %-46s %.2f\n", "ratios of times, with to without", ratios)
	return nil
}

// besideFlood has the daemon serve n folders while signed webhooks come, with or
// without a flood, and returns how long that took, and the webhooks' answers.
func (b *bench) besideFlood(name string, n int, others bool) (took time.Duration, answers []time.Duration, err error) {
	root, err := b.spool(name)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	s := sandbox.New(sandbox.Options{Key: "key", Secret: "secret"})
	url, stop, err := s.Start()
	if err != nil {
		return 0, nil, err
	}
	defer stop()
	if err := fill(root, n, 100_000, nil); err != nil {
		return 0, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	address := l.Addr().String()
	if err := errors.Join(l.Close(), os.Setenv("IDENFY_WEBHOOK_KEY", floodKey)); err != nil {
		return 0, nil, err
	}
	begin := time.Now()
	d, err := b.start(root, url, "completeness: {settle: 1s}\nshutdown_grace: 1s\nverdict: {listen: '"+address+"'}")
	if err != nil {
		return 0, nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	var group sync.WaitGroup
	if others {
		for range 1000 {
			group.Go(func() { slow(ctx, address) })
		}
		group.Go(func() { unsigned(ctx, address) })
	}
	var failed error
	group.Go(func() { answers, failed = signed(ctx, address) })
	err = until("all in done", 5*time.Minute, func() bool { return d.count("done") == n })
	took = time.Since(begin)
	end()
	group.Wait()
	return took, answers, errors.Join(err, failed, d.stop())
}

// slow is a connection that sends a byte each second, again and again.
func slow(ctx context.Context, address string) {
	for ctx.Err() == nil {
		c, err := net.Dial("tcp", address)
		if err != nil {
			pause(ctx, 100*time.Millisecond)
			continue
		}
		_, err = io.WriteString(c, "POST /idenfy HTTP/1.1\r\nHost: x\r\nX: ")
		for err == nil && pause(ctx, time.Second) {
			_, err = io.WriteString(c, "x")
		}
		_ = c.Close() // it was of no use to anybody
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// unsigned sends webhooks with a signature that nobody's key made.
func unsigned(ctx context.Context, address string) {
	body := sandbox.HookBody(sandbox.NewScanRef(), "APPROVED", true)
	client := &http.Client{Timeout: 10 * time.Second}
	for pause(ctx, 5*time.Millisecond) {
		_, _ = hook(ctx, client, address, body, sandbox.Sign(body, "nobody's"))
	}
}

func hook(ctx context.Context, client *http.Client, address string, body []byte, signature string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/idenfy", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Idenfy-Signature", signature)
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// signed sends good ones, twenty a second, and returns how long each answer took.
func signed(ctx context.Context, address string) (answers []time.Duration, err error) {
	client := &http.Client{Timeout: 10 * time.Second}
	for pause(ctx, 50*time.Millisecond) {
		body := sandbox.HookBody(sandbox.NewScanRef(), "APPROVED", true)
		begin := time.Now()
		status, sent := hook(ctx, client, address, body, sandbox.Sign(body, floodKey))
		switch {
		case ctx.Err() != nil, sent != nil && len(answers) == 0: // the end; or it has not started yet
		case sent != nil:
			return answers, sent
		case status != http.StatusOK:
			return answers, fmt.Errorf("a signed webhook was answered %d", status)
		default:
			answers = append(answers, time.Since(begin))
		}
	}
	return answers, nil
}
