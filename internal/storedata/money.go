package storedata

import (
	"fmt"
	"strconv"
	"strings"
)

// Money is an amount to display or to compute with: a decimal string with the currency's
// number of decimal places.
type Money struct {
	Value    string `json:"value"`
	Currency string `json:"currency"`
}

// NewMoney converts minor units (cents, for most currencies) to Money. It assumes two
// decimal places for a currency that is not in currencies.
func NewMoney(minor int64, currency string) Money {
	places, ok := currencies[currency]
	if !ok {
		places = 2
	}
	return Money{Value: decimal(minor, places), Currency: currency}
}

// decimal formats minor with the last places digits after the decimal point.
func decimal(minor int64, places int) string {
	if places == 0 {
		return strconv.FormatInt(minor, 10)
	}
	digits, sign := strconv.FormatInt(minor, 10), ""
	if minor < 0 {
		digits, sign = digits[1:], "-"
	}
	digits = fmt.Sprintf("%0*s", places+1, digits)
	point := len(digits) - places
	return sign + digits[:point] + "." + digits[point:]
}

// currencies maps every currency that a store can charge in to the number of decimal
// places of its minor unit. Source: ISO 4217, list one, of January 2026.
//
// golang.org/x/text/currency is not suitable. Its decimal places come from CLDR and are
// for display: Colombian pesos and Pakistani rupees have none there. An amount in the
// minor units that payment providers use would then be shown 100 times too large. Its
// codes date from 2017.
var currencies = func() map[string]int {
	m := map[string]int{}
	for places, codes := range map[int]string{
		0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
		2: `AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY
			COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
			IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR
			MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG
			SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES
			WST XCD XCG YER ZAR ZMW ZWG`,
		3: "BHD IQD JOD KWD LYD OMR TND",
	} {
		for code := range strings.FieldsSeq(codes) {
			m[code] = places
		}
	}
	return m
}()
