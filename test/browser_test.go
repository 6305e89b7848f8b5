package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium, asked over a pipe
// (chromedevtools.github.io/devtools-protocol, --remote-debugging-pipe).
type browser struct {
	t       *testing.T
	to      io.Writer
	from    chan message
	n       int
	session string
	seen    []message // events of the page so far
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct{ Message string }
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	in, to, err := os.Pipe()
	must(t, err)
	from, out, err := os.Pipe()
	must(t, err)
	cmd := exec.Command("chromium-headless-shell", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage",
		"--disable-background-networking", "--no-first-run", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{in, out} // 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = io.Discard // a pipe, so that Wait waits for its children too, who write into its directory
	must(t, cmd.Start())
	must(t, errors.Join(in.Close(), out.Close()))
	b := &browser{t: t, to: to, from: make(chan message)}
	done := make(chan struct{})
	go func() {
		defer close(b.from)
		for r := bufio.NewReader(from); ; {
			data, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(data[:len(data)-1], &m) != nil {
				return
			}
			select {
			case b.from <- m:
			case <-done:
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		_ = to.Close() // at which it ends
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		_ = from.Close()
	})
	return b
}

// next returns the next message.
func (b *browser) next() message {
	b.t.Helper()
	select {
	case m, ok := <-b.from:
		if !ok {
			b.t.Fatal("the browser has ended")
		}
		return m
	case <-time.After(2 * time.Minute):
		b.t.Fatal("the browser doesn't answer")
	}
	return message{}
}

// do has the browser do something, and reads what comes of it.
func (b *browser) do(method string, params, result any) {
	b.t.Helper()
	b.n++
	data, err := json.Marshal(map[string]any{"id": b.n, "method": method, "params": params, "sessionId": b.session})
	if b.session == "" {
		data, err = json.Marshal(map[string]any{"id": b.n, "method": method, "params": params})
	}
	must(b.t, err)
	_, err = b.to.Write(append(data, 0))
	must(b.t, err)
	for {
		m := b.next()
		if m.ID != b.n {
			b.seen = append(b.seen, m)
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			must(b.t, json.Unmarshal(m.Result, result))
		}
		return
	}
}

type params map[string]any

// tab opens a page of its own.
func (b *browser) tab() {
	b.t.Helper()
	var target struct{ TargetID, SessionID string }
	b.session = ""
	b.do("Target.createTarget", params{"url": "about:blank"}, &target)
	b.do("Target.attachToTarget", params{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.do(domain+".enable", params{}, nil)
	}
}

// open opens a page, as wide and in such colours, on the screen or for print, and
// returns what it asked for and what it complained of.
func (b *browser) open(url string, width int, scheme, media string) (requests, complaints []string) {
	b.t.Helper()
	b.tab()
	b.do("Emulation.setDeviceMetricsOverride", params{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.do("Emulation.setEmulatedMedia", params{"media": media, "features": []params{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.seen = nil
	b.do("Page.navigate", params{"url": url}, nil)
	loaded := func() bool {
		for _, m := range b.seen {
			if m.Method == "Page.loadEventFired" {
				return true
			}
		}
		return false
	}
	for !loaded() {
		b.seen = append(b.seen, b.next())
	}
	b.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))", nil) // it is drawn
	for _, m := range b.seen {
		switch m.Method {
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			must(b.t, json.Unmarshal(m.Params, &p))
			if !strings.HasPrefix(p.Request.URL, "data:") {
				requests = append(requests, p.Request.URL)
			}
		case "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening":
			complaints = append(complaints, m.Method+" "+string(m.Params))
		}
	}
	return requests, complaints
}

// eval asks the page something.
func (b *browser) eval(script string, result any) {
	b.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	b.do("Runtime.evaluate", params{"expression": script, "returnByValue": true, "awaitPromise": true}, &answer)
	if answer.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", script, answer.ExceptionDetails.Text)
	}
	if result != nil {
		must(b.t, json.Unmarshal(answer.Result.Value, result))
	}
}

// cutOff names what can't be seen as a whole: what is beyond the page's edge, what
// its own box hides, and texts of a drawing that lie on each other.
const cutOff = `(() => {
	const found = [], tell = (why, e) => found.push(why + ": <" + e.tagName + " class=" + (e.getAttribute("class") || "") + "> " + e.textContent.trim().slice(0, 60));
	const width = document.documentElement.clientWidth;
	if (document.documentElement.scrollWidth > innerWidth) found.push("the page is " + document.documentElement.scrollWidth + " wide");
	for (const e of document.body.querySelectorAll("*")) {
		const r = e.getBoundingClientRect(), hidden = e.closest("thead") && getComputedStyle(e.closest("thead")).position == "absolute";
		if (hidden || r.width == 0) continue;
		if (r.right > width + 0.5 || r.left < -0.5) tell("beyond the edge", e);
		if (!(e instanceof SVGElement) && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && getComputedStyle(e).display != "inline") tell("wider than its place", e);
	}
	for (const svg of document.querySelectorAll("svg")) {
		const s = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")].map(e => [e, e.getBoundingClientRect()]);
		for (const [e, r] of texts) {
			if (r.left < s.left - 1 || r.right > s.right + 1 || r.top < s.top - 1 || r.bottom > s.bottom + 1) tell("out of its drawing", e);
			for (const [o, q] of texts)
				if (o !== e && r.left < q.right - 0.5 && q.left < r.right - 0.5 && r.top < q.bottom - 0.5 && q.top < r.bottom - 0.5) tell("on another text", e);
		}
	}
	return found.slice(0, 20);
})()`

// faint names texts whose contrast is less than 4.5 to 1 (WCAG 2.2, 1.4.3).
const faint = `(() => {
	const parse = c => c.match(/[\d.]+/g).map(Number), light = c => { const [r, g, b] = parse(c).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\)$/.test(c)) return c; } return "rgb(255, 255, 255)"; };
	const found = new Set();
	for (const e of document.body.querySelectorAll("*")) {
		if (["title", "desc"].includes(e.tagName)) continue; // of a drawing, and not drawn
		if (![...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())) continue;
		const s = getComputedStyle(e), a = light(e instanceof SVGElement ? s.fill : s.color), b = light(behind(e)), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) found.add(e.tagName + " " + s.color + " on " + behind(e) + ": " + ratio.toFixed(2));
	}
	return [...found].slice(0, 20);
})()`

// A report and the overview page in a browser, narrow and wide, light, dark and
// printed: no complaint, no request to anywhere, nothing cut off, nothing faint.
func TestLabReportInBrowser(t *testing.T) {
	needsLab(t)
	l := reported(t)
	file := filepath.Join(t.TempDir(), "report.html")
	if code, out := l.output("report", "--html", file); code != 0 {
		t.Fatalf("%d, %s", code, out)
	}
	b := newBrowser(t)
	for _, url := range []string{"file://" + file, "http://" + l.metrics + "/"} {
		papers := map[string]bool{}
		for _, c := range []struct {
			width         int
			scheme, media string
		}{{400, "light", ""}, {400, "dark", ""}, {761, "light", ""}, {1600, "light", ""}, {1600, "dark", ""}, {680, "light", "print"}, {680, "dark", "print"}} {
			what := fmt.Sprintf("%s, %d wide, %s %s", url, c.width, c.scheme, c.media)
			requests, complaints := b.open(url, c.width, c.scheme, c.media)
			if len(requests) != 1 || requests[0] != url {
				t.Errorf("%s: it asks for %q", what, requests)
			}
			if len(complaints) > 0 {
				t.Errorf("%s: %s", what, complaints)
			}
			var cut, pale []string
			if b.eval(cutOff, &cut); len(cut) > 0 {
				t.Errorf("%s:\n%s", what, strings.Join(cut, "\n"))
			}
			if b.eval(faint, &pale); len(pale) > 0 {
				t.Errorf("%s:\n%s", what, strings.Join(pale, "\n"))
			}
			var page struct {
				Paper, Text        string
				Drawings, Scripted int
			}
			b.eval(`({Paper: getComputedStyle(document.body).backgroundColor, Text: document.body.textContent, Drawings: document.querySelectorAll("svg[role=img] rect").length,
				Scripted: document.querySelectorAll("script, img, iframe, object, embed, form, [onload], [onerror]").length})`, &page)
			if page.Drawings == 0 || page.Scripted > 0 {
				t.Errorf("%s: %d drawn, %d of what may act", what, page.Drawings, page.Scripted)
			}
			if c.media == "" {
				papers[c.scheme+" "+page.Paper] = true
			}
			if !strings.Contains(page.Text, evilNames[0]) {
				t.Errorf("%s: a name is not shown as it is", what)
			}
			if shots := os.Getenv("IDENFY_BATCH_SHOTS"); shots != "" {
				b.shoot(filepath.Join(shots, fmt.Sprintf("%t-%d-%s%s.png", strings.HasPrefix(url, "file"), c.width, c.scheme, c.media)))
			}
		}
		if len(papers) != 2 {
			t.Errorf("%s: light and dark are %v", url, papers)
		}
	}
}

// shoot keeps a picture of the whole page, for people to look at: where
// IDENFY_BATCH_SHOTS names a directory.
func (b *browser) shoot(path string) {
	b.t.Helper()
	var shot struct{ Data []byte }
	b.do("Emulation.setScrollbarsHidden", params{"hidden": true}, nil)
	b.do("Page.captureScreenshot", params{"captureBeyondViewport": true}, &shot)
	must(b.t, os.WriteFile(path, shot.Data, 0o600))
}
