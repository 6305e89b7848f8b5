package meta

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"idenfy-batch/sidecar"
)

// Defaults are for what a folder's meta.yaml leaves out; its own word wins.
type Defaults struct {
	Country      string // as in meta.yaml; empty: none
	DocumentType string // likewise
	SkipAnalysis bool   // false: not sent
	// ByFolder takes the folder's name for the clientId where meta.yaml has
	// neither authToken nor clientId.
	ByFolder bool
	// Folder is the name that counts for that; empty: the one that the folder has.
	Folder string
	// Optional says that no meta.yaml is needed. It takes all of the others
	// that meta.yaml has to have, see Lacking.
	Optional bool
}

// Check tells what is wrong with the values, by the keys of meta.yaml.
func (d Defaults) Check(bad func(key, format string, args ...any)) {
	if d.Country != "" {
		if wrong := wrongCountry(d.Country); wrong != "" {
			bad("country", "%s", wrong)
		}
	}
	if d.DocumentType != "" && documentTypes[d.DocumentType] == nil {
		bad("documentType", "%s", wrongDocumentType)
	}
}

// Lacking returns the keys without which no meta.yaml can be optional.
func (d Defaults) Lacking() (keys []string) {
	if d.Country == "" {
		keys = append(keys, "country")
	}
	if d.DocumentType == "" {
		keys = append(keys, "documentType")
	}
	if !d.ByFolder {
		keys = append(keys, "clientId: folder")
	}
	return keys
}

const wrongDocumentType = "has to be ID_CARD, PASSPORT, DRIVER_LICENSE or RESIDENCE_PERMIT, in capitals"

// wrongCountry tells what is wrong with a country, which may be of any case.
func wrongCountry(code string) string {
	code = strings.ToUpper(code)
	if isCountry(code) {
		return ""
	}
	return "is not a code of ISO 3166-1 alpha-2, such as LT" + countryHint(code)
}

// Present is the key of Defaults.Optional, where that was made use of.
const Present = "meta"

// DefaultsOf returns the defaults that a life began with, by its result, with the
// clientId that it was given.
func DefaultsOf(r *sidecar.Result, clientID string) (d Defaults) {
	for _, key := range r.Defaults {
		switch key {
		case "country":
			d.Country = r.Request.Country
		case "documentType":
			d.DocumentType = r.Request.DocumentType
		case "skipAnalysis":
			d.SkipAnalysis = r.Request.SkipAnalysis
		case "clientId":
			d.ByFolder, d.Folder = true, clientID
		case Present:
			d.Optional = true
		}
	}
	return d
}

// defaults fills in what meta.yaml leaves out, and notes it. What stands there
// without a value is not left out.
func (c *checker) defaults(m *Meta, d Defaults) {
	fill := func(key string, value *string, by string) {
		if by != "" && *value == "" && c.lines[key] == 0 {
			*value = by
			c.filled = append(c.filled, key)
		}
	}
	fill("country", &m.Country, d.Country)
	fill("documentType", &m.DocumentType, d.DocumentType)
	if d.SkipAnalysis && m.SkipAnalysis == nil && c.lines["skipAnalysis"] == 0 {
		m.SkipAnalysis = &d.SkipAnalysis
		c.filled = append(c.filled, "skipAnalysis")
	}
	if d.ByFolder && c.lines["authToken"] == 0 {
		fill("clientId", &m.ClientID, d.Folder)
	}
}

// byFolder reports whether the clientId is the folder's name.
func (c *checker) byFolder() bool { return slices.Contains(c.filled, "clientId") }

// badClient tells what is wrong with a folder's name as a clientId.
func (c *checker) badClient(name string) {
	c.reasons = append(c.reasons, Reason{Code: "bad_folder_name", Field: "clientId", Message: "the folder's name is to be the clientId (defaults), so it has to be 1 to 100 ASCII characters, without a space at its ends, and this has " +
		strconv.Itoa(utf8.RuneCountInString(name)) + "; rename the folder, or give clientId in " + Name})
}
