package meta

import "strings"

// Defaults are for what a folder's meta.yaml leaves out; its own word wins.
type Defaults struct {
	Country      string // as in meta.yaml; empty: none
	DocumentType string // likewise
	SkipAnalysis bool   // false: not sent
	// ByFolder takes the folder's name for the clientId where meta.yaml has
	// neither authToken nor clientId.
	ByFolder bool
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
