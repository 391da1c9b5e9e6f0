package httpapi

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
)

// TestDocumentDescribesEverything checks that each operation has an id of the form
// resource.action that no other one has, and that operations, parameters, headers and
// members have descriptions.
func TestDocumentDescribesEverything(t *testing.T) {
	t.Parallel()
	doc := newAPI(Domains{}, allRoutes()).huma.OpenAPI()
	ids := map[string]bool{}
	form := regexp.MustCompile(`^[a-z][A-Za-z]+\.[a-z][A-Za-z]+$`)
	for _, op := range operationsOf(doc) {
		if ids[op.OperationID] || !form.MatchString(op.OperationID) {
			t.Errorf("%s %s has the operation id %q", op.Method, op.Path, op.OperationID)
		}
		ids[op.OperationID] = true
		if op.Summary == "" || op.Description == "" || op.Tags == nil {
			t.Errorf("%s has no summary, description or tag", op.OperationID)
		}
		for _, p := range op.Parameters {
			if p.Description == "" {
				t.Errorf("%s: the parameter %s has no description", op.OperationID, p.Name)
			}
		}
		for status, response := range op.Responses {
			for name, header := range response.Headers {
				if header.Description == "" {
					t.Errorf("%s %s: the header %s has no description", op.OperationID, status, name)
				}
			}
		}
	}
	if len(ids) < 100 {
		t.Errorf("%d operations", len(ids))
	}
	for name, schema := range doc.Components.Schemas.Map() {
		for member, of := range schema.Properties {
			if strings.TrimSpace(of.Description) == "" {
				t.Errorf("%s.%s has no description", name, member)
			}
		}
	}
}

// TestSchemasOfAnswers checks that answers may have more members in a later version.
func TestSchemasOfAnswers(t *testing.T) {
	t.Parallel()
	doc := newAPI(Domains{}, allRoutes()).huma.OpenAPI()
	answers := newSchemaSet(doc)
	for _, op := range operationsOf(doc) {
		for status, response := range op.Responses {
			if status != "204" && status != "304" && response.Content == nil && status != "302" && status != "303" {
				t.Errorf("%s %s has no content", op.OperationID, status)
			}
			for kind, media := range response.Content {
				if schema := media.Schema; schema.Ref == "" && schema.Type == "" && schema.AnyOf == nil {
					t.Errorf("%s %s: anything may be in its %s", op.OperationID, status, kind)
				}
			}
			answers.addContent(response.Content)
		}
	}
	for schema := range answers.seen {
		if schema.AdditionalProperties == false {
			t.Errorf("a schema of answers has no further members: %v", schema.Properties)
		}
	}
	if len(answers.seen) < 100 {
		t.Errorf("%d schemas", len(answers.seen))
	}
}

// TestDescriptionsOfNull checks that the description of a member of an answer says when it
// is null if it can be, and does not speak of null otherwise.
func TestDescriptionsOfNull(t *testing.T) {
	t.Parallel()
	doc := newAPI(Domains{}, allRoutes()).huma.OpenAPI()
	answers := newSchemaSet(doc)
	for _, op := range operationsOf(doc) {
		for _, response := range op.Responses {
			answers.addContent(response.Content)
		}
	}
	nullable := 0
	for name, schema := range doc.Components.Schemas.Map() {
		if !answers.seen[schema] {
			continue
		}
		for member, of := range schema.Properties {
			can := of.Nullable || slices.ContainsFunc(of.AnyOf, func(s *huma.Schema) bool { return s.Type == "null" })
			if can {
				nullable++
			}
			if says := nullWord.MatchString(of.Description); says != can {
				t.Errorf("%s.%s can be null: %t; its description is %q", name, member, can, of.Description)
			}
		}
	}
	if nullable < 50 {
		t.Errorf("%d members can be null, want many more", nullable)
	}
}

var nullWord = regexp.MustCompile(`\bnull\b`)

// TestLocationOfWhatIsMade checks that each answer 201 has the header Location, unless what
// was made has no address.
func TestLocationOfWhatIsMade(t *testing.T) {
	t.Parallel()
	without := map[string]bool{
		"holds.create": true, "operator.impersonate": true, "autoRecharge.saveCard": true, "secondFactor.enroll": true,
	}
	made := 0
	for _, op := range operationsOf(newAPI(Domains{}, allRoutes()).huma.OpenAPI()) {
		response := op.Responses["201"]
		if response == nil {
			continue
		}
		made++
		if (response.Headers["Location"] == nil) != without[op.OperationID] {
			t.Errorf("%s: Location %v", op.OperationID, response.Headers["Location"])
		}
	}
	if made < 12 {
		t.Errorf("%d operations make something", made)
	}
}

// TestDescriptionsAreUsed fails for a description that nothing in the document has.
func TestDescriptionsAreUsed(t *testing.T) {
	t.Parallel()
	doc := newAPI(Domains{}, allRoutes()).huma.OpenAPI()
	used := map[string]bool{}
	for _, schema := range doc.Components.Schemas.Map() {
		for _, member := range schema.Properties {
			used[member.Description] = true
		}
	}
	for _, op := range operationsOf(doc) {
		for _, p := range op.Parameters {
			used[p.Description] = true
		}
		for _, response := range op.Responses {
			for _, header := range response.Headers {
				used[header.Description] = true
			}
		}
	}
	for name, text := range descriptions {
		if !used[text] {
			t.Errorf("nothing has the description of %s", name)
		}
	}
}
