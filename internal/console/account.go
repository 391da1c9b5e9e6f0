package console

import "regexp"

// FormView fills FormPage. Without a Button the page has no form.
type FormView struct {
	Title  string
	Text   string
	Fault  string // what was wrong with the form that was sent
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

// textPart is a part of a text: a link, or the text between links.
type textPart struct {
	text string
	url  bool
}

var webLink = regexp.MustCompile(`https?://[^\s<>"]+`)

// splitLinks splits a text into its links and the text between them.
func splitLinks(text string) (out []textPart) {
	at := 0
	for _, m := range webLink.FindAllStringIndex(text, -1) {
		out = append(out, textPart{text: text[at:m[0]]}, textPart{text: text[m[0]:m[1]], url: true})
		at = m[1]
	}
	return append(out, textPart{text: text[at:]})
}
