package httpapi

import (
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// descriptions has what members, parameters and headers mean that have the same meaning
// wherever they are. A doc tag says more of one. A name with the name of a schema before it
// is of that schema alone.
var descriptions = map[string]string{ //nolint:gosec // texts about credentials, no credentials
	"access":                          "What the credentials allow: write, or read",
	"accessToken":                     "Send it as Authorization: Bearer with each request",
	"action":                          "What was done, such as member.invited",
	"addressLine1":                    "First line of the store's postal address",
	"addressLine2":                    "Second line of the store's postal address",
	"alt":                             "Description of the image for those who do not see it",
	"amount":                          "Credits, a decimal string",
	"at":                              "When it was",
	"attempt":                         "Number of the attempt, from 1 on",
	"Audit.address":                   "Network address that the request came from",
	"backupId":                        "Id of the archive",
	"balance":                         "Credits of the store, a decimal string",
	"balanceAfter":                    "The store's credits after this entry, a decimal string",
	"brand":                           "Brand of the card, such as visa",
	"bytes":                           "Size of the rows, in bytes",
	"category":                        "Slug of the product's category; null without one",
	"challengeToken":                  "The challengeToken of the sign-in that needs a second factor",
	"check":                           "The last check of the archive",
	"checksum":                        "Checksum of the rows, which is the same on every engine",
	"city":                            "City of the store's postal address",
	"code":                            "Stable name of the fault, for programs",
	"ConfirmSecondFactorRequest.code": "Code that the authenticator app shows now",
	"SecondFactorRequest.code":        "Code that the authenticator app shows now, or a recovery code",
	"Region.code":                     "Name of the region at Supabase",
	"connectedAt":                     "When the account was connected; null if it is not",
	"contactEmail":                    "E-mail address for the store's customers",
	"contactPhone":                    "Telephone number for the store's customers",
	"country":                         "ISO 3166-1 alpha-2 code of the country",
	"createdAt":                       "When it was created",
	"credits":                         "The store's credits",
	"Purchase.credits":                "How many credits were bought, a decimal string",
	"currency":                        "ISO 4217 code of the currency",
	"custom":                          "It is a hostname of the owner's own, not one below the platform's domain",
	"daily":                           "How many archives of different days are kept",
	"data":                            "The items of this page",
	"database":                        "Name of the database",
	"Store.database":                  "The store's database; null before one is connected",
	"date":                            "The day, in UTC",
	"description":                     "Free text for people",
	"details":                         "More about what was done; which members there are depends on the action",
	"effectiveFrom":                   "From when on the price holds",
	"email":                           "E-mail address",
	"emailVerified":                   "The address was proven",
	"enabled":                         "Whether it is switched on",
	"engine":                          "Engine of the database",
	"engineVersion":                   "Version that the database server reports",
	"error":                           "Why it failed; null if it did not",
	"expires":                         "Month and year in which the card expires",
	"expiresAt":                       "When it ends by itself",
	"finishedAt":                      "When it ended; null while it has not",
	"firstName":                       "First name of the person",
	"from":                            "The database that the store had",
	"hold":                            "The hold",
	"host":                            "Hostname or address of the database server",
	"hostname":                        "The hostname, in lower case",
	"hostnames":                       "Hostnames that lead to the store",
	"hourly":                          "How many archives of different hours are kept",
	"id":                              "Id of this item, a UUID",
	"Organization.id":                 "Id of the organisation at Supabase",
	"image":                           "The product's first image; null without one",
	"inStock":                         "At least one can be ordered",
	"invitedBy":                       "Name or address of who sent the invitation",
	"last4":                           "The last four digits of the card",
	"lastCheckedAt":                   "When it was last checked; null before the first time",
	"lastName":                        "Last name of the person",
	"lifetimePurchased":               "All credits that the store ever bought, a decimal string",
	"lifetimeSpent":                   "All credits that the store ever spent, a decimal string",
	"limit":                           "The most items of a page",
	"locale":                          "BCP 47 tag of the store's language",
	"logoUrl":                         "Address of the store's logo; empty without one",
	"lowBalanceThreshold":             "Below this many credits the owners are told, a decimal string; null: they are not",
	"message":                         "What is wrong and what to do, for a person",
	"mode":                            "How TLS is used: the sslmode",
	"monthly":                         "How many archives of different months are kept",
	"monthlyCap":                      "The most credits that are bought automatically in a month, a decimal string",
	"moveId":                          "Id of the move, a UUID",
	"name":                            "Name, for people",
	"newEmail":                        "The address that the account is to have",
	"nextCursor":                      "Send it as cursor for the next page; null on the last one",
	"ok":                              "The database can be used",
	"oldPassword":                     "The present password",
	"organization":                    "Id of the organisation at Supabase",
	"outcome":                         "How it ended",
	"paidAt":                          "When it was paid; null while it is not",
	"passkey":                         "The passkey",
	"passkeyToken":                    "The passkeyToken of the call that began this",
	"password":                        "Password of the account",
	"ConnectRequest.password":         "Password of the database user",
	"Credentials.password":            "Password of the database user",
	"port":                            "Port of the database server",
	"postalCode":                      "Postal code of the store's postal address",
	"price":                           "What one costs; null while it is not for sale",
	"primary":                         "It is the one that others redirect to",
	"profile":                         "The store's profile; null while its database cannot be read",
	"provider":                        "The payment provider",
	"provisioning":                    "The store's last provisioning run; null in lists and before the first one",
	"purchased":                       "Credits bought, a decimal string",
	"reason":                          "Why, for people",
	"received":                        "The event was received",
	"recoveryCodes":                   "Each signs in once instead of a code of the app; they are shown only now",
	"recoveryCodesLeft":               "How many recovery codes are not used yet",
	"ref":                             "Reference of the project at Supabase",
	"refreshToken":                    "Exchange it for a new pair of tokens; it works once",
	"region":                          "Region or state of the store's postal address",
	"CreateProjectRequest.region":     "Name of the region at Supabase; see the list of regions",
	"Project.region":                  "Name of the region at Supabase",
	"requestId":                       "Id of the request, which the platform's log has too",
	"reserved":                        "Credits that open holds have set aside, a decimal string",
	"restore":                         "The restore that fills the store",
	"role":                            "What the person may do in the store",
	"rows":                            "Number of rows",
	"rowsCopied":                      "Rows copied so far",
	"runId":                           "Id of the provisioning run, a UUID",
	"schemaVersion":                   "Version of Stoa's tables in the database",
	"scopes":                          "What the key may do",
	"serviceKey":                      "Name of the service in the price list",
	"settings":                        "Settings of the store's own, a JSON object",
	"since":                           "When the person became a member",
	"slug":                            "Name in the store's hostname: lower-case letters, digits and hyphens",
	"spent":                           "Credits spent, a decimal string",
	"startedAt":                       "When it began; null while it has not",
	"state":                           "How far it is",
	"status":                          "State of the whole",
	"step":                            "The step that is under way, or that failed",
	"steps":                           "All steps, in their order",
	"storeId":                         "Id of the store, a UUID",
	"table":                           "Name of the table",
	"tables":                          "Rows, bytes and checksum of each table",
	"theme":                           "Look of the store, a JSON object of the store's own",
	"threshold":                       "Credits are bought when fewer than this are available, a decimal string",
	"timezone":                        "IANA name of the store's time zone",
	"tls":                             "TLS of the connection",
	"to":                              "The database that the store is to have",
	"token":                           "The token of the mail",
	"tokenType":                       "Always Bearer",
	"transaction":                     "The entry in the ledger",
	"type":                            "Kind of the item",
	"unit":                            "What one unit of the service is",
	"unitPrice":                       "Credits for one unit, a decimal string",
	"updatedAt":                       "When it was last changed",
	"url":                             "Address of the image",
	"usedThisMonth":                   "Credits that were bought automatically this month, a decimal string",
	"user":                            "The person",
	"ConnectRequest.user":             "Name of the database user",
	"Credentials.user":                "Name of the database user",
	"userId":                          "Id of the person, a UUID",
	"value":                           "Value, as text",
	"Money.value":                     "Amount in units of the currency, a decimal string",
	"verified":                        "The hostname was proven to be the owner's",
	"verifiedAt":                      "When it was proven; null before",
	"website":                         "Address of the store's own web site",
	"weekly":                          "How many archives of different weeks are kept",

	"ETag":                 "Version of what is answered, for If-Match",
	"Idempotency-Replayed": "true when this is the answer to an earlier request with the same Idempotency-Key",
	"Location":             "Address of what was made, or of the work that goes on",
	"Preference-Applied":   "How long the call was allowed to wait for the end of the work",
	"Set-Cookie":           "Ties the consent to this browser",
	"Stripe-Signature":     "Signature of the event by the payment provider",
	"RateLimit":            "For each limit that the request counts against: its name, r, the requests that are left, and t, the seconds until the limit is whole again",
	"RateLimit-Policy":     "For each limit: its name, q, the requests, and w, the seconds in which they may be made",
	"sort":                 "Order of the list",
}

// describe gives all members, parameters and headers without a description the one in
// descriptions.
func describe(doc *huma.OpenAPI) {
	for name, schema := range doc.Components.Schemas.Map() {
		for member, of := range schema.Properties {
			if of.Description == "" {
				of.Description = descriptionOf(name, member)
			}
		}
	}
	for _, op := range operationsOf(doc) {
		for _, p := range op.Parameters {
			if p.Description == "" {
				p.Description = descriptionOf("", p.Name)
			}
		}
		for _, response := range op.Responses {
			for name, header := range response.Headers {
				if header.Description == "" {
					header.Description = descriptionOf("", name)
				}
			}
		}
	}
}

func descriptionOf(schema, name string) string {
	if text, ok := descriptions[schema+"."+name]; ok {
		return text
	}
	if text, ok := descriptions[name]; ok || name == "" {
		return text
	}
	return descriptions[strings.ToLower(name[:1])+name[1:]]
}
