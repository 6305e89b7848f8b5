package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

var (
	verdictFolders = flag.Int("verdict.folders", 40, "folders of TestVerdicts")
	verdictEvents  = flag.Int("verdict.events", 300, "events of TestVerdicts")
	verdictKills   = flag.Int("verdict.kills", 6, "kills of TestVerdicts")
)

const webhookKey = "the-key-of-the-webhook"

// hook is a webhook that is sent, and what is to become of it.
type hook struct {
	ref    string
	body   []byte
	sign   string
	good   bool // the signature
	folder bool // there is one of that session
}

// hooks makes events for sessions in random order: several for one, duplicates,
// bad signatures, altered bodies, and such of sessions that nobody knows.
func hooks(n int, refs []string) []hook {
	list := make([]hook, 0, n)
	words := []string{"REVIEWING", "APPROVED", "DENIED", "SUSPECTED"}
	for i := range n {
		h := hook{ref: refs[i%len(refs)], good: true, folder: true}
		word := words[rand.IntN(len(words))]
		switch i % 20 {
		case 3:
			h.good = false
		case 7:
			h.ref, h.folder = sandbox.NewScanRef(), false
		}
		h.body = append(sandbox.HookBody(h.ref, word, word != "REVIEWING"), fmt.Sprintf("\n%*d", i%7, i)...) // none is like another, though it is JSON no more
		h.body = bytes.Replace(h.body, []byte(`"beneficiaryId":null`), fmt.Appendf(nil, `"beneficiaryId":"b%d"`, i), 1)
		h.body = h.body[:bytes.LastIndexByte(h.body, '}')+1]
		h.sign = sandbox.Sign(h.body, webhookKey)
		switch {
		case !h.good && i%40 == 3:
			h.sign = sandbox.Sign(h.body, "another key")
		case !h.good: // altered on its way
			h.body = bytes.Replace(h.body, []byte(`"final":`), []byte(`"final" :`), 1)
		}
		list = append(list, h)
		if i%11 == 0 {
			list = append(list, h) // twice
		}
	}
	rand.Shuffle(len(list), func(a, b int) { list[a], list[b] = list[b], list[a] })
	return list
}

// posted sends a hook until it is answered, as iDenfy does, and returns the
// answer and how long that took.
func posted(ctx context.Context, client *http.Client, url string, h *hook) (status int, took time.Duration) {
	for ctx.Err() == nil {
		begin := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(h.body))
		if err != nil {
			return 0, 0
		}
		req.Header.Set("Idenfy-Signature", h.sign)
		res, err := client.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusServiceUnavailable {
				return res.StatusCode, time.Since(begin)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, 0
}

// Events for many folders come in random order, with duplicates, bad signatures,
// altered and unknown ones, while folders are submitted and the daemon is killed
// again and again: each one that was answered 200 is in its verdict.json once,
// and nothing that was not signed is anywhere.
func TestVerdicts(t *testing.T) {
	folders, events, kills := *verdictFolders, *verdictEvents, *verdictKills
	address := freeAddress(t)
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}", "concurrency: 8", "verdict: {listen: '"+address+"'}")
	l.patience = 10 * time.Minute
	t.Setenv("IDENFY_WEBHOOK_KEY", "an-older-key\n"+webhookKey)
	l.inboxReady()
	name := func(n int) string { return fmt.Sprintf("case%04d", n) }
	refs := make([]string, folders)
	for n := range folders {
		refs[n] = sandbox.NewScanRef()
		l.api.Issue(token(name(n)), refs[n])
	}
	l.start()
	putting := make(chan struct{})
	go func() {
		defer close(putting)
		for n := range folders {
			f := files(name(n))
			f["meta.yaml"] = append(f["meta.yaml"], "scanRef: "+refs[n]+"\n"...)
			f[".ready"] = nil
			if err := sample.Write(l.path("inbox", name(n)), f); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()

	list := hooks(events, refs)
	url := "http://" + address + "/idenfy"
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	work := make(chan *hook)
	var mu sync.Mutex
	var took []time.Duration
	statuses := map[int]int{}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for h := range work {
				status, d := posted(t.Context(), client, url, h)
				if want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[h.good]; status != want {
					t.Errorf("answered %d in place of %d", status, want)
				}
				mu.Lock()
				took = append(took, d)
				statuses[status]++
				mu.Unlock()
			}
		})
	}
	every := max(len(list)/(kills+1), 1)
	for i := range list {
		work <- &list[i]
		if i%every == every-1 && i/every < kills {
			time.Sleep(time.Duration(rand.Int64N(int64(50 * time.Millisecond))))
			l.kill()
			l.forgive()
			l.start()
		}
	}
	close(work)
	group.Wait()
	<-putting
	l.until("all have ended", func() bool { return len(l.names(spool.Work))+len(l.names(spool.Inbox)) == 0 })
	want := map[string]map[string]bool{}
	for i := range list {
		if h := &list[i]; h.good && h.folder {
			if want[h.ref] == nil {
				want[h.ref] = map[string]bool{}
			}
			want[h.ref][bodySum(h.body)] = true
		}
	}
	for n := range folders {
		l.until("the verdict of "+name(n), func() bool { return len(l.events(name(n))) == len(want[refs[n]]) })
		seen := map[string]bool{}
		for _, sum := range l.events(name(n)) {
			if seen[sum] || !want[refs[n]][sum] {
				t.Errorf("%s has an event twice, or one that is not its own", name(n))
			}
			seen[sum] = true
		}
	}
	must(t, l.stop())
	l.leakless(list)
	if found := l.altered(); len(found) > 0 {
		t.Errorf("ledger verify finds %v", found)
	}
	if v := l.api.Report().Violations; len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
	slices.Sort(took)
	t.Logf("%d events for %d folders, %d kills: answers %v; 50%% within %s, 99%% within %s, the slowest %s", len(list), folders, kills, statuses,
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

func bodySum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// events returns the SHA-256 of the events in the verdict.json of a folder.
func (l *lab) events(name string) (sums []string) {
	l.t.Helper()
	for _, p := range []spool.Place{spool.Done, spool.Hold, spool.Failed} {
		dir, err := os.OpenRoot(l.path(string(p), name))
		if err != nil {
			continue
		}
		v, _, err := sidecar.ReadVerdict(dir)
		dir.Close()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		must(l.t, err)
		for i := range v.Events {
			sums = append(sums, v.Events[i].SHA256)
		}
		return sums
	}
	return nil
}

// leakless looks through the whole spool for what was not signed, and for the
// person's data.
func (l *lab) leakless(list []hook) {
	l.t.Helper()
	bad := [][]byte{[]byte("JANE-SAMPLE"), []byte("SAMPLE-0042")}
	for i := range list {
		if !list[i].good {
			bad = append(bad, []byte(bodySum(list[i].body)))
		}
	}
	must(l.t, filepath.WalkDir(l.root, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasSuffix(path, ".jpg") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, b := range bad {
			if bytes.Contains(data, b) {
				l.t.Errorf("%s has %s", path, b)
			}
		}
		return err
	}))
	if logged := l.logged(); strings.Contains(logged, "JANE-SAMPLE") || strings.Contains(logged, webhookKey) {
		l.t.Error("the log has a person's data, or the key")
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// With a socket that is handed over, as systemd does, nobody is turned away
// while the daemon is killed and restarted: who connects meanwhile waits.
func TestSocketHandedOver(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer socket.Close()
	tcp, ok := socket.(*net.TCPListener)
	if !ok {
		t.Fatal("no TCP")
	}
	file, err := tcp.File()
	must(t, err)
	defer file.Close()
	l := newLab(t)
	t.Setenv("IDENFY_WEBHOOK_KEY", webhookKey)
	l.inboxReady()
	ref := sandbox.NewScanRef()
	l.api.Issue(token("case-7"), ref)
	f := files("case-7")
	f["meta.yaml"] = append(f["meta.yaml"], "scanRef: "+ref+"\n"...)
	f[".ready"] = nil
	start := func() {
		t.Helper()
		l.startAs(func(cmd *exec.Cmd) {
			// LISTEN_PID is the process's own (sd_listen_fds(3)).
			cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=verdict exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
			cmd.Path = "/bin/sh"
			cmd.ExtraFiles = []*os.File{file}
		})
	}
	start()
	l.put("case-7", f)
	done := make(chan struct{})
	var refused, taken int
	sums := map[string]bool{}
	go func() {
		defer close(done)
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for n := range 60 {
			h := hook{ref: ref, body: bytes.Replace(sandbox.HookBody(ref, "APPROVED", true), []byte(`"clientIp"`), fmt.Appendf(nil, `"n":%d,"clientIp"`, n), 1)}
			h.sign = sandbox.Sign(h.body, webhookKey)
			sums[bodySum(h.body)] = true
			for try := 0; ; try++ { // as iDenfy does: a killed daemon takes along what it was answering
				begin := time.Now()
				req, err := http.NewRequest(http.MethodPost, "http://"+socket.Addr().String()+"/idenfy", bytes.NewReader(h.body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Idenfy-Signature", h.sign)
				res, err := client.Do(req)
				if errors.Is(err, syscall.ECONNREFUSED) || time.Since(begin) > 9*time.Second || try > 5 {
					refused++
				}
				if err == nil {
					res.Body.Close()
					if res.StatusCode == http.StatusOK {
						taken++
						break
					}
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		l.kill()
		time.Sleep(200 * time.Millisecond)
		start()
	}
	<-done
	if refused > 0 || taken != len(sums) {
		t.Errorf("%d refused, %d of %d taken", refused, taken, len(sums))
	}
	l.until("its verdict", func() bool { return len(l.events("case-7")) == len(sums) })
	must(t, l.stop())
}

// post sends a webhook as iDenfy does, through the proxy, and returns how it was
// answered; 0: not within ten seconds.
func (b *box) post(body []byte, signature string) (status int) {
	out, _ := b.exec(string(body), "curl -s -m 10 -o /dev/null -w '%{http_code} %{errormsg}' -H 'Content-Type: application/json' -H 'Idenfy-Signature: "+signature+"' --data-binary @- https://verdicts.example.com/idenfy")
	if _, err := fmt.Sscan(out, &status); err != nil || status == 0 {
		b.t.Logf("a webhook is not answered: %s", out)
	}
	return status
}

// stream is events that are sent, several at a time.
type stream struct {
	b     *box
	end   func() // once, and waits until all are answered
	group sync.WaitGroup

	signing sync.RWMutex // held while one is under way
	key     string

	mu      sync.Mutex
	sent    map[string]string // which session each is for, by its hash
	answers map[int]int       // by status
	slowest time.Duration     // answer
}

// stream begins to send events for sessions, each its own, until stop.
func (b *box) stream(refs []string, key string) *stream {
	ended := make(chan struct{})
	s := &stream{b: b, key: key, sent: map[string]string{}, answers: map[int]int{}}
	s.end = sync.OnceFunc(func() {
		close(ended)
		s.group.Wait()
	})
	b.t.Cleanup(s.end)
	for sender := range 3 {
		s.group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-ended:
					return
				case <-time.After(50 * time.Millisecond):
					s.send(refs[n%len(refs)], fmt.Sprintf("%d of %d", n, sender))
				}
			}
		})
	}
	return s
}

// send sends one, ten times at most, as iDenfy does.
func (s *stream) send(ref, name string) {
	body := bytes.Replace(sandbox.HookBody(ref, "APPROVED", true), []byte("sample-client"), []byte(name), 1)
	for try, status := 0, 0; try < 10 && status != http.StatusOK; try++ {
		begin := time.Now()
		s.signing.RLock()
		status = s.b.post(body, sandbox.Sign(body, s.key))
		s.signing.RUnlock()
		s.mu.Lock()
		s.sent[bodySum(body)] = ref
		s.answers[status]++
		s.slowest = max(s.slowest, time.Since(begin))
		s.mu.Unlock()
	}
}

// signBy has another key sign from now on, as the dashboard has.
func (s *stream) signBy(key string) {
	s.signing.Lock()
	defer s.signing.Unlock()
	s.key = key
}

// stop ends it. A daemon that ends may cut off what it was just accepting, which
// then is sent again: that is rare, but for those that kills cut off.
func (s *stream) stop(behind string, cut int) {
	s.b.t.Helper()
	s.end()
	again := -len(s.sent)
	for _, n := range s.answers {
		again += n
	}
	if s.answers[http.StatusOK] != len(s.sent) || again > len(s.sent)/50+cut {
		s.b.t.Errorf("behind %s: %d events: answers %v", behind, len(s.sent), s.answers)
	}
	s.b.t.Logf("webhooks behind %s: %d events, %d of them sent again, the slowest answer %s", behind, len(s.sent), again, s.slowest.Round(time.Millisecond))
}

// verdicts returns what lies in done/.
func (b *box) verdicts() (list []sidecar.Verdict) {
	b.t.Helper()
	in := json.NewDecoder(strings.NewReader(b.run("cat /var/spool/idenfy-batch/done/*/verdict.json")))
	for in.More() {
		var v sidecar.Verdict
		must(b.t, in.Decode(&v))
		list = append(list, v)
	}
	return list
}

// entered waits until each event is in the verdict.json of its folder, and
// fails if one is there twice or is nobody's; the sandbox sent one more for each
// folder.
func (b *box) entered(folders int, sent map[string]string) {
	b.t.Helper()
	var list []sidecar.Verdict
	b.until("each event is in its verdict.json", func() bool {
		events := 0
		list = b.verdicts()
		for i := range list {
			events += len(list[i].Events) + list[i].Omitted
		}
		return len(list) >= folders && events >= folders+len(sent)
	})
	seen := map[string]int{}
	for i := range list {
		v := &list[i]
		own := 0 // the sandbox's
		for _, e := range v.Events {
			if ref, ok := sent[e.SHA256]; !ok {
				own++
			} else if seen[e.SHA256]++; ref != v.ScanRef {
				b.t.Errorf("an event for %s is in the folder of %s", ref, v.ScanRef)
			}
		}
		if own != 1 || v.Omitted > 0 || v.Overall != "APPROVED" || v.Contradicted {
			b.t.Errorf("%d events of the sandbox, %d omitted, %s, contradicted: %v", own, v.Omitted, v.Overall, v.Contradicted)
		}
	}
	for sum := range sent {
		if seen[sum] != 1 {
			b.t.Errorf("event %s is there %d times", sum, seen[sum])
		}
	}
}

// forged has what is not signed, or by another, refused by the proxy's way, and
// looks for it in the whole spool: nothing is there.
func (b *box) forged(ref string, sent map[string]string) {
	b.t.Helper()
	body := sandbox.HookBody(ref, "DENIED", true)
	for _, signature := range slices.Repeat([]string{"", sandbox.Sign(body, "another-key")}, 10) {
		if status := b.post(body, signature); status != http.StatusUnauthorized {
			b.t.Errorf("a forged event is answered %d", status)
		}
	}
	for sum := range sent { // that it would be found
		b.run("grep -rqF " + sum + " /var/spool/idenfy-batch/journal")
		break
	}
	b.run("! grep -rlF -e " + bodySum(body) + " -e DENIED -e JANE-SAMPLE /var/spool/idenfy-batch")
	if status := b.try("curl -s -o /dev/null -w '%{http_code}' https://verdicts.example.com/metrics"); status != "404" {
		b.t.Errorf("another path is answered %s", status)
	}
}

// killed has the daemon killed while events come in.
func (b *box) killed(refs []string) map[string]string {
	b.t.Helper()
	events := b.stream(refs, webhookKey)
	const kills = 3
	for range kills {
		time.Sleep(time.Second)
		before := b.property("NRestarts")
		b.run("systemctl kill -s KILL idenfy-batch")
		b.until("it is started again", func() bool { return b.property("NRestarts") != before && b.property("ActiveState") == "active" })
	}
	time.Sleep(time.Second)
	events.stop("nginx, over three kills", 3*kills) // each of the three senders
	return events.sent
}

// nextKey is the one that webhookKey is replaced by.
const nextKey = "the-next-key-of-the-webhook"

// rotated replaces the key while events come in, by the steps of verdicts.md.
func (b *box) rotated(refs []string) map[string]string {
	b.t.Helper()
	events := b.stream(refs, webhookKey)
	signed := func(key string) int {
		body := sandbox.HookBody("no-session-of-ours", "APPROVED", true)
		return b.post(body, sandbox.Sign(body, key))
	}
	if status := signed(nextKey); status != http.StatusUnauthorized {
		b.t.Errorf("before it is in the file: %d", status)
	}
	b.runWith(nextKey+"\n", "cat >>/etc/idenfy-batch/webhook-key; systemctl restart idenfy-batch")
	for _, key := range []string{webhookKey, nextKey} {
		if status := signed(key); status != http.StatusOK {
			b.t.Errorf("one of two keys: %d", status)
		}
	}
	events.signBy(nextKey)
	b.run("sed -i 1d /etc/idenfy-batch/webhook-key; systemctl restart idenfy-batch")
	if status := signed(webhookKey); status != http.StatusUnauthorized {
		b.t.Errorf("the key that was taken out: %d", status)
	}
	time.Sleep(time.Second)
	events.stop("nginx, while the key is replaced", 0)
	return events.sent
}

// Webhooks on a Debian that systemd has booted, behind nginx and Caddy with TLS:
// the commands and the configuration of verdicts.md word by word, and restarts
// and an upgrade while folders are submitted and events come in.
func TestLabVerdicts(t *testing.T) {
	needsLab(t)
	b := newBox(t)
	certificate(t, b.share)
	must(t, sample.Write(filepath.Join(b.share, "case"), map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face}))
	// The proxy has port 443 of all addresses.
	b.api += ":8443"
	must(t, os.WriteFile(filepath.Join(b.share, "drop"), []byte(strings.ReplaceAll(dropper, "https://ivs.idenfy.com", b.api)), 0o755))
	deb := func(version string) string {
		return fmt.Sprintf("/srv/dist/idenfy-batch_%s_%s.deb", version, runtime.GOARCH)
	}
	b.run("apt-get install -y " + deb("0.9.0"))
	b.run("sed -i 's,base_url: .*,base_url: " + b.api + ",' /etc/idenfy-batch/config.yaml; echo 127.0.0.1 verdicts.example.com >>/etc/hosts")
	b.startSandbox("/usr/bin/idenfy-batch", "--listen", "127.0.0.1:8443", "--webhook", "https://verdicts.example.com/idenfy", "--webhook-key", webhookKey)
	b.runWith("the-api-key\n", "(umask 077; cat >/etc/idenfy-batch/api-key)")
	b.runWith("the-api-secret\n", "(umask 077; cat >/etc/idenfy-batch/api-secret)")
	b.run("systemctl enable --now idenfy-batch; systemctl start nginx")
	b.run("mkdir -p /etc/letsencrypt/live/verdicts.example.com; cd /etc/letsencrypt/live/verdicts.example.com; cp /srv/share/cert.pem fullchain.pem; cp /srv/share/key.pem privkey.pem")
	b.runWith(blocks(t, "verdicts.md", "nginx")[0], "cat >/etc/nginx/conf.d/idenfy.conf")
	commands := blocks(t, "verdicts.md", "sh")
	caddy := commands[len(commands)-1]
	for _, c := range commands[:len(commands)-1] {
		b.runWith(webhookKey+"\n", c)
	}
	if out := b.run("systemd-analyze verify --man=no idenfy-batch-verdict.socket idenfy-batch.service"); out != "" {
		t.Errorf("verify: %s", out)
	}

	b.drop("first", 8)
	b.settled()
	refs := strings.Fields(b.run("sed -sn 's/^scanRef: //p' /var/spool/idenfy-batch/done/first-*/meta.yaml"))
	const more = 40
	events := b.stream(refs, webhookKey)
	dropped := make(chan struct{})
	go func() {
		defer close(dropped)
		b.exec("", fmt.Sprintf("/srv/share/drop case %d", more))
	}()
	for range 4 {
		time.Sleep(time.Second)
		b.run("systemctl restart idenfy-batch")
	}
	b.run("apt-get install -y " + deb("0.9.1"))
	time.Sleep(time.Second)
	<-dropped
	b.settled()
	events.stop("nginx, over four restarts and an upgrade", 0)
	folders, sent := len(refs)+more, events.sent
	maps.Copy(sent, b.killed(refs))
	maps.Copy(sent, b.rotated(refs))
	b.entered(folders, sent)
	b.run("idenfy-batch version | grep 0.9.1; grep -q '\"version\": \"0.9.1\"' /var/spool/idenfy-batch/done/*/result.json")

	b.forged(refs[0], sent)

	// Caddy would get its certificate from a public authority.
	b.runWith("{\n\tlocal_certs\n}\n\n"+blocks(t, "verdicts.md", "caddy")[0], "systemctl stop nginx; systemctl start caddy; cat >/etc/caddy/Caddyfile")
	b.run(caddy)
	b.until("Caddy has its certificate", func() bool {
		return b.try("cp /var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt /usr/local/share/ca-certificates/caddy.crt && update-ca-certificates >/dev/null && curl -s -o /dev/null -w '%{http_code}' https://verdicts.example.com/") == "404"
	})
	events = b.stream(refs, nextKey)
	for range 2 {
		time.Sleep(time.Second)
		b.run("systemctl restart idenfy-batch")
	}
	time.Sleep(time.Second)
	events.stop("Caddy, over two restarts", 0)
	maps.Copy(sent, events.sent)
	b.forged(refs[0], sent)
	b.entered(folders, sent)

	// An event starts a daemon that was stopped.
	b.run("systemctl stop idenfy-batch")
	b.run("curl -s -m 20 -o /dev/null -X POST -d x http://127.0.0.1:9188/idenfy")
	b.until("the daemon is there again", func() bool { return b.property("ActiveState") == "active" })
	b.run("apt-get remove -y idenfy-batch; ! systemctl is-active idenfy-batch-verdict.socket")
}
