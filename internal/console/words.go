package console

import (
	"errors"
	"net/url"

	"github.com/stoahq/stoa"
)

// storeURL returns the address of a store's own page: that of its hostname, with the
// scheme and port of the platform.
func (c *Console) storeURL(hostname string) string {
	base, err := url.Parse(c.BaseURL)
	if err != nil {
		return "http://" + hostname
	}
	if port := base.Port(); port != "" {
		hostname += ":" + port
	}
	return base.Scheme + "://" + hostname
}

// messageOf returns what an error says to people.
func messageOf(err error) string {
	var known *stoa.Error
	if errors.As(err, &known) {
		return known.Message
	}
	return "Something went wrong on our side."
}

// faultWords says in words what the code of a database's last fault means.
func faultWords(code stoa.Code) string {
	if words, ok := databaseFaults[code]; ok {
		return words
	}
	return "it answered with an error."
}

var databaseFaults = map[stoa.Code]string{
	stoa.DatabaseUnreachable:        "its server cannot be reached. Check that it runs and lets this platform in.",
	stoa.DatabaseAuthFailed:         "it refuses the user or password. Enter the new password on the store's database page.",
	stoa.DatabaseTLSFailed:          "its certificate is not accepted. Check that it is valid for the server's name.",
	stoa.DatabaseHostForbidden:      "its address is not allowed.",
	stoa.DatabaseNotEmpty:           "it holds tables of others. Choose an empty database.",
	stoa.DatabaseVersionUnsupported: "its version is too old.",
	stoa.DatabasePermissionDenied:   "its user lacks a right that the platform needs.",
	stoa.DatabaseCredentialsLost:    "its credentials cannot be decrypted any more. Enter them again.",
	stoa.DatabaseExposed:            "its tables can be read from outside. Close that first.",
	stoa.DatabaseNoProgress:         "it accepts changes without making them.",
	stoa.DatabaseContentInvalid:     "it holds values that cannot be read.",
	stoa.DatabaseSettingRefused:     "a setting of its server prevents its use.",
	stoa.SupabaseProjectPaused:      "its Supabase project is paused. Resume it at Supabase.",
	stoa.SupabaseProjectRemoved:     "its Supabase project was removed.",
	stoa.SupabaseReconnect:          "the connection to Supabase has ended. Connect it again.",
}
