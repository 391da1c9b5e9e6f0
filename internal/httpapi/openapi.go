package httpapi

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
)

// completeDocument describes what has no description of its own, and makes the schemas of
// answers exact. Huma derives one kind of schema for
// requests and answers, which is the one of requests: there a struct has no further members,
// a pointer to a struct is no null and an array may be null. In an answer it is the other way
// round; later versions add members.
func completeDocument(doc *huma.OpenAPI) {
	requests, answers := newSchemaSet(doc), newSchemaSet(doc)
	for _, op := range operationsOf(doc) {
		sameContent(op)
		addLimitHeaders(op)
		for _, p := range op.Parameters {
			requests.add(p.Schema)
		}
		if op.RequestBody != nil {
			requests.addContent(op.RequestBody.Content)
		}
		for _, response := range op.Responses {
			answers.addContent(response.Content)
		}
	}
	for name, schema := range doc.Components.Schemas.Map() {
		if answers.seen[schema] && requests.seen[schema] {
			panic("httpapi: the schema " + name + " is one of requests and of answers")
		}
	}
	for schema := range answers.seen {
		if schema.AdditionalProperties == false {
			schema.AdditionalProperties = nil
		}
		if schema.Type == huma.TypeArray {
			schema.Nullable = false
		}
	}
	for name, schema := range doc.Components.Schemas.Map() {
		if answers.seen[schema] {
			enumerateCodes(schema, doc.Components.Schemas.TypeFromRef(refPrefix+name))
			nullableMembers(schema, doc.Components.Schemas.TypeFromRef(refPrefix+name))
		}
	}
	describe(doc)
}

const refPrefix = "#/components/schemas/"

// schemaNames has the names of schemas that schemaName would make unclear.
var schemaNames = map[string]string{
	"ListOfOrganizationViewBody": "OrganizationPage", "ListOfProjectViewBody": "ProjectPage", "ListOfRegionViewBody": "RegionPage",
	"ConnectBodyTLSStruct": "ConnectTLS", "FrontView": "Storefront", "FactorOutputBody": "SecondFactor", "FaultView": "Fault",
	"KeyView": "APIKey", "DeviceView": "Session", "SessionView": "Tokens", "RunView": "ProvisioningRun", "RunSummaryView": "ProvisioningSummary",
	"EventView": "ProvisioningEvent", "PublishedEventView": "Event", "PublishedEventPage": "EventPage", "StepView": "ProvisioningStep", "TestView": "DatabaseTest", "PlaceView": "MovePlace", "RecordView": "DNSRecord",
	"ConnectionOutputBody": "SupabaseConnection", "MeOutputBody": "Account", "TransferInputBody": "TransferOwnershipRequest",
	"ConfirmInputBody": "ConfirmSecondFactorRequest", "AcceptInputBody": "AcceptInvitationRequest", "EnrolOutputBody": "SecondFactorEnrollment",
	"Summary": "TableSummary",
}

// schemaName returns the name of a type's schema, by the rules of the document: a body of a
// request is a Request, one of an answer a Response, and what both are called in the code
// does not matter.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	if chosen, ok := schemaNames[name]; ok {
		return chosen
	}
	for _, end := range []struct{ in, out string }{{"InputBody", "Request"}, {"OutputBody", "Response"}, {"Body", "Request"}, {"View", ""}} {
		if stem, ok := strings.CutSuffix(name, end.in); ok {
			return stem + end.out
		}
	}
	return name
}

// addLimitHeaders adds the headers about rate limits, which each answer has.
func addLimitHeaders(op *huma.Operation) {
	for _, response := range op.Responses {
		if response.Headers == nil {
			response.Headers = map[string]*huma.Param{}
		}
		for _, name := range []string{"RateLimit", "RateLimit-Policy"} {
			response.Headers[name] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeString}}
		}
	}
}

// sameContent gives the content and headers of an operation's default answer to its other
// answers of success.
func sameContent(op *huma.Operation) {
	of := op.Responses[strconv.Itoa(max(op.DefaultStatus, http.StatusOK))]
	for status, response := range op.Responses {
		if status[0] == '2' && status != strconv.Itoa(http.StatusNoContent) && response.Content == nil && of != nil {
			response.Content, response.Headers = of.Content, of.Headers
		}
	}
}

// nullableMembers lets the members that are pointers be null.
func nullableMembers(schema *huma.Schema, t reflect.Type) {
	if t == nil || t.Kind() != reflect.Struct {
		return
	}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		member := schema.Properties[name]
		if member == nil || f.Type.Kind() != reflect.Pointer || strings.Contains(options, "omit") {
			continue
		}
		if member.Ref != "" {
			*member = huma.Schema{Description: member.Description, AnyOf: []*huma.Schema{{Ref: member.Ref}, {Type: "null"}}}
			continue
		}
		member.Nullable = true
		if member.Enum != nil && !slices.Contains(member.Enum, nil) {
			member.Enum = append(member.Enum, nil)
		}
	}
}

// enumerateCodes lists the values of the members that are codes.
func enumerateCodes(schema *huma.Schema, t reflect.Type) {
	if t == nil || t.Kind() != reflect.Struct {
		return
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if member := schema.Properties[name]; member != nil && f.Type == reflect.TypeFor[stoa.Code]() {
			for _, c := range codes {
				member.Enum = append(member.Enum, string(c.code))
			}
		}
	}
}

// operationsOf returns the operations of a document in the order of their paths.
func operationsOf(doc *huma.OpenAPI) (list []*huma.Operation) {
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete} {
			if op != nil {
				list = append(list, op)
			}
		}
	}
	return list
}

// schemaSet is a set of schemas with all that they refer to.
type schemaSet struct {
	doc  *huma.OpenAPI
	seen map[*huma.Schema]bool
}

func newSchemaSet(doc *huma.OpenAPI) schemaSet {
	return schemaSet{doc: doc, seen: map[*huma.Schema]bool{}}
}

func (s schemaSet) addContent(content map[string]*huma.MediaType) {
	for _, media := range content {
		s.add(media.Schema)
	}
}

func (s schemaSet) add(schema *huma.Schema) {
	if schema == nil || s.seen[schema] {
		return
	}
	s.seen[schema] = true
	if schema.Ref != "" {
		s.add(s.doc.Components.Schemas.SchemaFromRef(schema.Ref))
	}
	s.add(schema.Items)
	for _, member := range schema.Properties {
		s.add(member)
	}
	for _, list := range [][]*huma.Schema{schema.AnyOf, schema.OneOf, schema.AllOf} {
		for _, member := range list {
			s.add(member)
		}
	}
	if more, ok := schema.AdditionalProperties.(*huma.Schema); ok {
		s.add(more)
	}
}
