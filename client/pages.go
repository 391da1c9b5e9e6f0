package client

import (
	"encoding"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
)

// pages yields the items of all pages. next reads the page at the cursor.
func pages[T any](yield func(T, error) bool, cursor **string, next func() ([]T, *string, error)) {
	for {
		items, following, err := next()
		if err == nil && following != nil && *cursor != nil && *following == **cursor {
			err = errors.New("stoa: the list does not end: a page names itself as the next one")
		}
		if err != nil {
			var none T
			yield(none, err)
			return
		}
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
		if following == nil {
			return
		}
		*cursor = following
	}
}

// encodeQuery returns the parameters of a struct, whose fields have form tags and are
// pointers or slices. nil pointers are left out.
func encodeQuery(params any) url.Values {
	values := url.Values{}
	v := reflect.ValueOf(params)
	if params == nil || v.IsNil() {
		return values
	}
	v = v.Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("form"), ",")
		field := v.Field(i)
		if name == "" || field.Kind() == reflect.Pointer && field.IsNil() {
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		if field.Kind() == reflect.Slice {
			var list []string
			for j := range field.Len() {
				list = append(list, text(field.Index(j)))
			}
			if list != nil {
				values.Set(name, strings.Join(list, ","))
			}
			continue
		}
		values.Set(name, text(field))
	}
	return values
}

// text returns a value as it is in a query.
func text(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if t, err := m.MarshalText(); err == nil {
			return string(t)
		}
	}
	return fmt.Sprint(v.Interface())
}
