package web

import "regexp"

// FormView fills FormPage. Without a Button there is no form.
type FormView struct {
	Title  string
	Text   string
	Fault  string // what was wrong with what was sent
	Action string // takes the POST
	Token  string
	Fields []FieldView
	Button string
}

// FieldView is one field of a form.
type FieldView struct {
	Name         string
	Label        string
	Type         string
	Autocomplete string
	Value        string
	Optional     bool
}

// MailView is one mail of MailboxPage.
type MailView struct {
	To      string
	Subject string
	At      string
	Text    string
}

// span is a part of a text: a link, or what is between two.
type span struct {
	text string
	url  bool
}

var webLink = regexp.MustCompile(`https?://[^\s<>"]+`)

// linked takes the links of a text apart from the rest.
func linked(text string) (out []span) {
	at := 0
	for _, m := range webLink.FindAllStringIndex(text, -1) {
		out = append(out, span{text[at:m[0]], false}, span{text[m[0]:m[1]], true})
		at = m[1]
	}
	return append(out, span{text[at:], false})
}
