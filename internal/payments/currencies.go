package payments

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
)

// currency describes how Stripe accepts amounts of a currency.
type currency struct {
	decimals int   // of the minor unit in which Stripe counts amounts
	multiple int64 // every amount must be a multiple of it
	minimum  int64 // the smallest charge, in minor units; 0 when Stripe documents none
}

// currencies are those in which Stripe accepts payments, as of 2026, from
// https://docs.stripe.com/currencies: presentment currencies, zero-decimal and
// three-decimal currencies, special cases, minimum charge amounts. Some differ from ISO
// 4217: ISK and UGX have no minor unit there, but Stripe counts them in hundredths and
// accepts whole units only. The minimum is that of an account whose bank account has the
// same currency.
var currencies = currencyTable()

const (
	twoDecimalCurrencies = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CNY COP CRC " +
		"CVE CZK DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR JMD KES KGS KHR KYD KZT LAK LBP LKR LRD " +
		"LSL MAD MDL MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SEK " +
		"SGD SHP SLE SOS SRD STD SZL THB TJS TOP TRY TTD TWD TZS UAH USD UYU UZS WST XCD YER ZAR ZMW"
	zeroDecimalCurrencies  = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
	threeDecimalCurrencies = "BHD JOD KWD OMR TND"
	wholeUnitCurrencies    = "ISK UGX"
)

func currencyTable() map[string]currency {
	table := map[string]currency{}
	for codes, rule := range map[string]currency{
		twoDecimalCurrencies: {decimals: 2, multiple: 1}, zeroDecimalCurrencies: {decimals: 0, multiple: 1},
		threeDecimalCurrencies: {decimals: 3, multiple: 10}, wholeUnitCurrencies: {decimals: 2, multiple: 100},
	} {
		for code := range strings.FieldsSeq(codes) {
			table[code] = rule
		}
	}
	for code, minimum := range map[string]int64{
		"AED": 200, "AUD": 50, "BGN": 100, "BRL": 50, "CAD": 50, "CHF": 50, "CZK": 1500, "DKK": 250, "EUR": 50, "GBP": 30, "HKD": 400, "HUF": 17500,
		"INR": 50, "JPY": 50, "MXN": 1000, "MYR": 200, "NOK": 300, "NZD": 50, "PLN": 200, "RON": 200, "SEK": 300, "SGD": 50, "THB": 1000, "USD": 50,
	} {
		rule := table[code]
		rule.minimum = minimum
		table[code] = rule
	}
	return table
}

// CheckCurrency returns an error unless Stripe accepts payments in the currency with that
// code, in capital letters.
func CheckCurrency(code string) error {
	if _, ok := currencies[code]; !ok {
		return fmt.Errorf("must be the ISO 4217 code of a currency in which Stripe takes payments, such as USD, not %q", code)
	}
	return nil
}

// Check returns an error unless every whole number of credits has a price that Stripe can
// charge. Check accepts any price in a currency that CheckCurrency refuses.
func (p Price) Check() error {
	if p.MinorPerCredit < 1 || p.MinorPerCredit > maxMinorPerCredit {
		return fmt.Errorf("must be 1 to %d minor units, not %d", maxMinorPerCredit, p.MinorPerCredit)
	}
	rule, ok := currencies[p.Currency]
	if !ok || p.MinorPerCredit%rule.multiple == 0 {
		return nil
	}
	return fmt.Errorf("must be a multiple of %d in %s, of which Stripe takes no smaller part: %d is %s %s; not %d",
		rule.multiple, p.Currency, rule.multiple, decimalAmount(rule.multiple, p.Currency), p.Currency, p.MinorPerCredit)
}

// of returns the price of whole credits, in minor units.
func (p Price) of(amount credits.Amount) int64 {
	return int64(amount/credits.Credit) * p.MinorPerCredit
}

// checkMinimum returns invalid_request for field when amount credits cost less than the
// smallest payment that Stripe accepts. If the minimum is not known here, Stripe reports
// it when the checkout is created.
func (p Price) checkMinimum(field string, amount credits.Amount) error {
	minimum := currencies[p.Currency].minimum
	cost := p.of(amount)
	if cost >= minimum {
		return nil
	}
	least := (minimum + p.MinorPerCredit - 1) / p.MinorPerCredit
	var faults stoa.Invalid
	faults.Add(field, "cost %s %s, less than the smallest payment that the provider takes (%s %s); buy at least %d",
		decimalAmount(cost, p.Currency), p.Currency, decimalAmount(minimum, p.Currency), p.Currency, least)
	return faults.Err()
}

// decimalAmount formats an amount of minor units as a decimal number. It assumes two
// decimal places for a currency that is not in the table.
func decimalAmount(minor int64, code string) string {
	places := 2
	if rule, ok := currencies[code]; ok {
		places = rule.decimals
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(places)), nil)
	return new(big.Rat).SetFrac(big.NewInt(minor), unit).FloatString(places)
}
