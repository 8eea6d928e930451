package browser

import (
	"cmp"
	"strings"
)

// Label names a browser and its system for a person, such as "Firefox on Linux", from a User-Agent
// header. It is a hint, which anyone can forge, and quotes nothing of the header.
func Label(userAgent string) string {
	return cmp.Or(first(userAgent, browsers), "A browser") + cmp.Or(prefixed(" on ", first(userAgent, systems)), "")
}

type mark struct{ in, name string }

// The more particular marks are first: most browsers claim to be Chrome or Safari too.
var (
	browsers = []mark{ //nolint:gochecknoglobals // a table
		{"curl/", "curl"},
		{"Edg", "Edge"},
		{"OPR/", "Opera"},
		{"SamsungBrowser/", "Samsung Internet"},
		{"Firefox/", "Firefox"},
		{"FxiOS/", "Firefox"},
		{"CriOS/", "Chrome"},
		{"HeadlessChrome/", "Chrome"},
		{"Chrome/", "Chrome"},
		{"Safari/", "Safari"},
	}
	systems = []mark{ //nolint:gochecknoglobals // a table
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"CrOS", "ChromeOS"}, {"Linux", "Linux"},
	}
)

func first(userAgent string, marks []mark) string {
	for _, m := range marks {
		if strings.Contains(userAgent, m.in) {
			return m.name
		}
	}
	return ""
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
