package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

//go:generate go run ./errorpages ../../docs/errors

// ErrorPages returns the documents on error codes, in Markdown, by the names of their files:
// one for each code, and README.md with the list of them.
func ErrorPages() map[string]string {
	pages := map[string]string{}
	var index strings.Builder
	index.WriteString("# Error codes\n\nThe `code` of a problem document is stable: programs may branch on it. This list is generated from the code.\n\n" +
		"| Code | Status | Cause |\n|---|---|---|\n")
	for _, c := range codes {
		fmt.Fprintf(&index, "| [`%s`](%s.md) | %d | %s |\n", c.code, c.code, c.status, c.cause)
		pages[string(c.code)+".md"] = c.page()
	}
	pages["README.md"] = index.String()
	return pages
}

// page returns the document on the code.
func (c codeInfo) page() string {
	example, err := json.MarshalIndent(c.example(), "", "  ")
	if err != nil {
		panic(err) // a Problem can be encoded
	}
	return fmt.Sprintf("# `%s`\n\n**Status:** %d %s\n\n**Cause:** %s\n\n**Remedy:** %s\n\n**Example:**\n\n```json\n%s\n```\n\n[All codes](README.md)\n",
		c.code, c.status, http.StatusText(c.status), c.cause, c.remedy, example)
}

// example returns a problem document with the code.
func (c codeInfo) example() *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(c.status), Status: c.status, Detail: c.cause, Remedy: c.plainRemedy(), Code: c.code,
		RequestID: "01a2210b-063a-794d-bd90-1c12f3fc312d",
	}
}
