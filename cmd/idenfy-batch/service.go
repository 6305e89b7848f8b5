package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// service is what a unit of systemd says of how the daemon is run.
type service struct {
	unit       string
	user       string   // empty: root
	program    string   // that it starts
	config     string   // that it is started with
	properties []string // who it is and what it sees: assignments, in their order
}

// theService finds the installed service that a configuration is of. There is
// none without systemd, and for a configuration of another's making.
func theService(ctx context.Context, config string) (service, bool) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return service{}, false
	}
	unit, instance := "idenfy-batch.service", ""
	if config != "" && config != defaultConfig {
		if instance = strings.TrimSuffix(filepath.Base(config), ".yaml"); filepath.Dir(config) != configDir || !isInstance(instance) {
			return service{}, false
		}
		unit = "idenfy-batch@" + instance + ".service"
	}
	text, err := exec.CommandContext(ctx, "systemctl", "cat", "--", unit).Output()
	if err != nil {
		return service{}, false
	}
	s := readUnit(string(text), unit, instance)
	return s, s.program != "" && (config == "" || config == s.config)
}

// apart are beginnings of assignments that say how a service is started and
// watched, or that make and remove what a running one has, and nothing of who it
// is and what it sees.
var apart = []string{
	"Exec", "Type", "Notify", "Watchdog", "Restart", "Timeout", "Success", "Runtime", "RemoveIPC", "Remain", "Sockets", "PIDFile", "BusName", "Kill",
	"SendSIG", "FinalKill", "Standard", "Syslog", "FileDescriptor", "OOM", "Guess", "NonBlocking", "Reload", "TTY", "UtmpMode", "State", "Logs", "Cache",
}

// readUnit reads what systemctl cat prints: the unit's file and its drop-ins, in
// the order in which they count.
func readUnit(text, unit, instance string) service {
	s := service{unit: unit}
	names := strings.NewReplacer("%%", "%", "%i", instance, "%I", instance, "%n", unit, "%N", strings.TrimSuffix(unit, ".service"), "%p", "idenfy-batch")
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Service]" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value = strings.TrimSpace(key), names.Replace(strings.TrimSpace(value))
		if words := strings.Fields(value); key == "ExecStart" && len(words) > 0 {
			s.program = strings.TrimLeft(words[0], "@-:+!")
			if at := slices.Index(words, "--config"); at >= 0 && at+1 < len(words) {
				s.config = words[at+1]
			}
		}
		if key == "User" {
			s.user = value
		}
		if !slices.ContainsFunc(apart, func(a string) bool { return strings.HasPrefix(key, a) }) {
			s.properties = append(s.properties, key+"="+value)
		}
	}
	return s
}

// check has systemd run the check as it runs the service.
func (s *service) check(ctx context.Context, out, errs io.Writer) error {
	user := s.user
	if user == "" {
		user = "root"
	}
	fmt.Fprintf(out, "as %s: user %s, its credentials, in its sandbox\n", s.unit, user)
	args := []string{"--quiet", "--collect", "--pipe", "--wait", "--service-type=exec", "--description=idenfy-batch check"}
	for _, p := range s.properties {
		args = append(args, "--property="+p)
	}
	args = append(args, "--", s.program, "check", "--here")
	if s.config != "" {
		args = append(args, "--config", s.config)
	}
	cmd := exec.CommandContext(ctx, "systemd-run", args...)
	cmd.Stdout, cmd.Stderr = out, errs
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ended) && (ended.ExitCode() == exitConfig || ended.ExitCode() == exitFailed):
		return &exitError{code: ended.ExitCode()} // it is said
	default:
		return failed(fmt.Errorf("the check can't be run as %s is: %w; see what systemd says of the unit (systemd-analyze verify %s), or check with this user's rights: check --here", s.unit, err, s.unit))
	}
}
