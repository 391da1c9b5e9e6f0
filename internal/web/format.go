package web

import "strings"

// Price formats an amount with its currency. An empty amount gives "".
func Price(amount, currency string) string {
	if amount == "" {
		return ""
	}
	return strings.TrimSpace(amount + "\u00a0" + currency)
}
