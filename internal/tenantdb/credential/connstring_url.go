package credential

import (
	"net/url"
	"strings"
)

// readURL parses the text after "scheme://".
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

// splitUserinfo finds the @ before the host. By the standard, the host part
// ends at the first /, ? or #. If no user precedes that character, the
// character is an unencoded part of the password, provided that there is only
// one @. If there are two possible readings, splitUserinfo fails, because the
// password would be sent to a host name that is a part of it.
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

// hasUserParameter reports whether the user is given as a parameter, which may
// contain an @.
func hasUserParameter(tail string) bool {
	_, query, ok := strings.Cut(tail, "?")
	return ok && strings.Contains("&"+strings.ToLower(query), "&user=")
}

// readLocation parses "host:port/database?parameters".
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

// readAddress parses one host with or without a port.
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

// unescape decodes percent-encoding. It returns text unchanged if no percent
// sign begins an escape, because such text was not encoded. It fails if some
// percent signs begin an escape and others do not, because either reading may
// be wrong.
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

// decodeQuery decodes a part of a query. It returns a part that is not encoded
// unchanged.
func decodeQuery(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// readJDBC parses the text after "jdbc:". In JDBC, the user is a parameter.
func (r *pasteReader) readJDBC(rest string) {
	if len(rest) > 12 && strings.EqualFold(rest[:12], "aws-wrapper:") {
		rest = rest[12:]
	}
	scheme, location, ok := strings.Cut(rest, "://")
	if !ok {
		r.fault("must have the form jdbc:%s://host:port/database?user=…&password=…", r.sql().facts().scheme())
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

// readGoDSN parses "user:password@tcp(host:port)/database?parameters", the form
// of Go's MySQL driver. Only the parameters are percent-encoded.
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
