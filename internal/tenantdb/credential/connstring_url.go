package credential

import (
	"net/url"
	"strings"
)

// readURL reads what stands behind "scheme://".
func (r *pasteReader) readURL(scheme, rest string) {
	if !r.checkScheme(scheme) {
		return
	}
	userinfo, rest, ok := splitUserinfo(rest)
	if !ok {
		r.mustEncode()
		return
	}
	user, password, _ := strings.Cut(userinfo, ":")
	var decoded [2]string
	for i, part := range []string{user, password} {
		if decoded[i], ok = unescape(part); !ok {
			r.mustEncode()
			return
		}
	}
	r.user, r.password = decoded[0], decoded[1]
	r.readLocation(rest)
}

// splitUserinfo finds the @ before the host. The standard reading ends the host
// part at the first /, ? or #. When there is no user before that, a character
// of these is a bare one in the password, as long as only one @ is there. Two
// readings are no reading: the password would go to a host that is a part of it.
func splitUserinfo(rest string) (userinfo, location string, ok bool) {
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at, later := strings.LastIndex(rest[:end], "@"), strings.Count(rest[end:], "@")
	switch {
	case at >= 0 && later == 0:
		return rest[:at], rest[at+1:], true
	case later == 0, at < 0 && hasUserParameter(rest[end:]):
		return "", rest, true
	case at >= 0, later > 1, !strings.Contains(rest[:end], ":"):
		return "", "", false
	}
	at = strings.LastIndex(rest, "@")
	return rest[:at], rest[at+1:], true
}

// hasUserParameter: the user is given as a parameter and may hold an @.
func hasUserParameter(tail string) bool {
	_, query, ok := strings.Cut(tail, "?")
	return ok && strings.Contains("&"+strings.ToLower(query), "&user=")
}

// readLocation reads "host:port/database?parameters".
func (r *pasteReader) readLocation(rest string) {
	location, query, _ := strings.Cut(rest, "?")
	address, path, _ := strings.Cut(location, "/")
	if strings.Contains(rest, "#") {
		r.mustEncode()
		return
	}
	r.readAddress(address)
	path = strings.TrimSuffix(path, "/")
	database, ok := unescape(path)
	if !ok || strings.Contains(path, "/") {
		r.mustEncode()
		return
	}
	r.database = database
	for parameter := range strings.SplitSeq(strings.ReplaceAll(query, "&amp;", "&"), "&") {
		if parameter == "" {
			continue
		}
		name, value, ok := strings.Cut(parameter, "=")
		if !ok && r.passwordRead {
			r.fault("has a parameter without a value behind the password; write & in the password as %%26")
			continue
		}
		r.set(decodeQuery(name), decodeQuery(value))
	}
}

// readAddress reads one host with or without a port.
func (r *pasteReader) readAddress(address string) {
	switch {
	case address == "":
		return
	case isPlaceholder(address) || strings.ContainsAny(address, "<>{}"):
		r.fault("has a placeholder in place of the host; put the database server's host name there")
	case strings.Contains(address, ",") || strings.Count(address, "(") > 1:
		r.fault("names several hosts: host must be one; give the one that accepts writes")
	case isSocket(address):
		r.fault("names a unix socket, which is on the client's own machine: host must be one host name or IP address")
	case strings.HasPrefix(address, "["):
		host, port, ok := strings.Cut(address[1:], "]")
		if !ok || port != "" && port[0] != ':' {
			r.fault("has a host that cannot be read; an IPv6 address is written in brackets")
			return
		}
		r.host, r.port = host, strings.TrimPrefix(port, ":")
	case strings.Count(address, ":") > 1:
		r.fault("has a host that cannot be read; write an IPv6 address in brackets, and special characters in the password percent-encoded")
	default:
		r.host, r.port, _ = strings.Cut(address, ":")
	}
}

func isSocket(host string) bool {
	host = strings.ToLower(host)
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || strings.Contains(host, "%2f") || strings.HasPrefix(host, "unix(") || host == `\\.` || strings.HasPrefix(host, `\\.\`)
}

// unescape decodes percent-encoding. Text in which no percent sign begins an
// escape was not encoded, and stays as it is. With both it fails: either
// reading may be wrong.
func unescape(s string) (string, bool) {
	bare, escapes := 0, 0
	for i := range len(s) {
		switch {
		case s[i] != '%':
		case i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			escapes++
		default:
			bare++
		}
	}
	if bare > 0 {
		return s, escapes == 0
	}
	decoded, err := url.PathUnescape(s)
	return decoded, err == nil
}

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

// decodeQuery decodes a part of a query, and leaves one that is not encoded.
func decodeQuery(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// readJDBC reads what stands behind "jdbc:". The user is a parameter there.
func (r *pasteReader) readJDBC(rest string) {
	if len(rest) > 12 && strings.EqualFold(rest[:12], "aws-wrapper:") {
		rest = rest[12:]
	}
	scheme, location, ok := strings.Cut(rest, "://")
	if !ok {
		r.fault("must have the form jdbc:%s://host:port/database?user=…&password=…", urlScheme[r.sql()])
		return
	}
	if scheme, way, several := strings.Cut(scheme, ":"); several && EngineOfScheme(scheme) != "" {
		r.fault("spreads over several hosts (%.20q): host must be one; give the one that accepts writes", safeName(way))
		return
	}
	end := strings.IndexAny(location, "/?#")
	if end < 0 || !strings.Contains(location[:end], "@") {
		if r.checkScheme(scheme) {
			r.readLocation(location)
		}
		return
	}
	r.readURL(scheme, location)
}

// readGoDSN reads "user:password@tcp(host:port)/database?parameters", the form
// of Go's MySQL driver. Nothing in it is percent-encoded but the parameters.
func (r *pasteReader) readGoDSN(text string) {
	if !r.checkScheme("mysql") {
		return
	}
	userinfo, rest, _ := strings.Cut(text, "@tcp(")
	if strings.Contains(rest, "@tcp(") || strings.Contains(rest, "@") {
		r.mustEncode()
		return
	}
	r.user, r.password, _ = strings.Cut(userinfo, ":")
	address, location, _ := strings.Cut(rest, ")")
	r.readLocation(address + location)
}
