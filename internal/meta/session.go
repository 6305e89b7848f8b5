package meta

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"idenfy-batch/internal/idenfy"
)

// clientForm is what a clientId may be: 1 to 100 ASCII characters, and no space
// at its ends, which is nobody's intention.
var clientForm = regexp.MustCompile(`^[\x21-\x7e]([\x20-\x7e]{0,98}[\x21-\x7e])?$`)

// session checks what says whose session it is: one that the producer has
// opened (authToken), or one that is to be opened for a person (clientId).
func (c *checker) session(m *Meta, faulty map[string]bool) {
	given := func(key string) bool { return c.lines[key] > 0 }
	switch {
	case given("authToken") && given("clientId"):
		c.add("bad_value", "clientId", "authToken and clientId are for two ways; leave authToken out to have the daemon open the session, or clientId if you have opened it")
	case given("clientId"), c.byFolder():
		c.client(m, faulty)
	default:
		c.token(m, faulty)
	}
	for _, p := range m.person() {
		switch {
		case *p.value == "" || faulty[p.key]:
		case !given("clientId") && !c.byFolder():
			c.add("bad_value", p.key, "%s is for a session that the daemon opens, and stands beside clientId only; leave it out", p.key)
		default:
			if wrong := p.check(*p.value); wrong != "" {
				c.add("bad_value", p.key, "%s %s", p.key, wrong)
			}
		}
	}
	m.Nationality = strings.ToUpper(m.Nationality)
}

func (c *checker) token(m *Meta, faulty map[string]bool) {
	switch {
	case faulty["authToken"] || faulty["clientId"]:
	case m.AuthToken == "":
		c.add("missing_key", "authToken", "authToken is missing; or give clientId in its place, and the daemon opens the session")
	case !idenfy.IsToken(m.AuthToken):
		c.add("bad_value", "authToken", "authToken has to be 10 to 40 ASCII characters without spaces, and this has %d", utf8.RuneCountInString(m.AuthToken))
	}
	if m.ScanRef != "" && !idenfy.IsScanRef(m.ScanRef) {
		c.add("bad_value", "scanRef", "scanRef has to be the one that came with the token, such as 328c6766-934e-11ed-bb9b-025ad99a18e7")
	}
}

func (c *checker) client(m *Meta, faulty map[string]bool) {
	switch {
	case faulty["clientId"] || clientForm.MatchString(m.ClientID):
	case c.byFolder():
		c.badClient(m.ClientID)
	default:
		c.add("bad_value", "clientId", "clientId has to be 1 to 100 ASCII characters, without a space at its ends, and this has %d", utf8.RuneCountInString(m.ClientID))
	}
	if m.ScanRef != "" {
		c.add("bad_value", "scanRef", "scanRef comes with a token, and with clientId the daemon asks for that; leave scanRef out")
	}
}

// detail is one thing that is known of the person.
type detail struct {
	key   string
	value *string
	check func(string) string // what is wrong with it; never with the value in it
}

// person returns what may be known of the person, with iDenfy's rules for it
// (its documentation of token generation).
func (m *Meta) person() []detail {
	return []detail{
		{"firstName", &m.FirstName, wrongName},
		{"lastName", &m.LastName, wrongName},
		{"dateOfBirth", &m.DateOfBirth, wrongDate},
		{"nationality", &m.Nationality, wrongCountry},
		{"personalNumber", &m.PersonalNumber, atMost(50)},
		{"documentNumber", &m.DocumentNumber, atMost(50)},
		{"sex", &m.Sex, func(v string) string {
			if v != "M" && v != "F" {
				return "has to be M or F"
			}
			return ""
		}},
		{"address", &m.Address, atMost(255)},
	}
}

// Person returns what meta.yaml tells of the person, by the API's names.
func (m *Meta) Person() map[string]string {
	known := map[string]string{}
	for _, d := range m.person() {
		if *d.value != "" {
			known[d.key] = *d.value
		}
	}
	return known
}

func wrongName(v string) string {
	if strings.ContainsAny(v, "~!@#$%^*()_+={}[]|:;\",<>/?") || strings.ContainsFunc(v, func(r rune) bool { return unicode.IsDigit(r) || unicode.IsControl(r) }) {
		return "may have no digits, and none of ~!@#$%^*()_+={}[]|:;\",<>/?"
	}
	return atMost(100)(v)
}

func wrongDate(v string) string {
	if day, err := time.Parse(time.DateOnly, v); err != nil || day.After(time.Now()) {
		return "has to be a day of the past, as YYYY-MM-DD"
	}
	return ""
}

func atMost(n int) func(string) string {
	return func(v string) string {
		if utf8.RuneCountInString(v) > n || strings.ContainsFunc(v, unicode.IsControl) {
			return fmt.Sprintf("has to be one line of at most %d characters", n)
		}
		return ""
	}
}
