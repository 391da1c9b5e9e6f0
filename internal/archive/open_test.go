package archive

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
)

func TestOpenStorage(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]S3Options{
		"s3://shop":                                  {Endpoint: "https://s3.us-east-1.amazonaws.com", Region: "us-east-1", Bucket: "shop"},
		"s3://shop/a/b/":                             {Endpoint: "https://s3.us-east-1.amazonaws.com", Region: "us-east-1", Bucket: "shop", Prefix: "a/b/"},
		"s3://shop?region=eu-2":                      {Endpoint: "https://s3.eu-2.amazonaws.com", Region: "eu-2", Bucket: "shop"},
		"s3://shop?style=virtual":                    {Endpoint: "https://s3.us-east-1.amazonaws.com", Region: "us-east-1", Bucket: "shop", VirtualHost: true},
		"s3://shop/x?endpoint=http://127.0.0.1:9000": {Endpoint: "http://127.0.0.1:9000", Region: "us-east-1", Bucket: "shop", Prefix: "x/"},
	} {
		s, err := OpenStorage(location, "key", keyring.NewSecret("secret"))
		if err != nil {
			t.Errorf("%s: %v", location, err)
			continue
		}
		got := s.(*S3).opts
		got.AccessKey, got.Secret, got.PartTimeout, got.Transport = "", keyring.Secret{}, 0, nil
		if got != want {
			t.Errorf("%s: %+v, want %+v", location, got, want)
		}
	}
	if s, err := OpenStorage("some/folder", "", keyring.Secret{}); err != nil {
		t.Error(err)
	} else if _, isFolder := s.(*Folder); !isFolder {
		t.Errorf("a path is %T", s)
	}
	const secret = "do-not-show"
	for _, location := range []string{
		"", "http://h/b", "s3://", "s3:///prefix", "s3://k:" + secret + "@shop", "s3://shop?password=" + secret, "s3://shop?style=round", "s3://shop?endpoint=ftp://h",
		"s3://shop?endpoint=https://h/path", "s3://shop/a%20b", "s3://%zz" + secret,
	} {
		if s, err := OpenStorage(location, "key", keyring.NewSecret(secret)); err == nil || s != nil {
			t.Errorf("%s is accepted", location)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
	if _, err := OpenStorage("s3://shop", "", keyring.Secret{}); err == nil {
		t.Error("a bucket without keys is accepted")
	}
}
