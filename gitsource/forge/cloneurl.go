package forge

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// SplitCloneURL takes a clone URL apart: where the host lives, and OWNER/NAME.
func SplitCloneURL(cloneURL string) (base, repo string, err error) {
	u, err := url.Parse(cloneURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return "", "", errors.New("host: the repository's URL is none of a host with an API (want https://HOST/OWNER/NAME.git)")
	}
	parts := strings.Split(strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git"), "/")
	if len(parts) < 2 {
		return "", "", fmt.Errorf("host: %s names no OWNER/NAME", u.Redacted())
	}
	at := len(parts) - 2
	root := url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/" + strings.Join(parts[:at], "/")}
	return root.String(), strings.Join(parts[at:], "/"), nil
}
