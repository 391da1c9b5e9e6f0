package archive

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/keyring"
)

// OpenStorage returns the storage at a location: the path of a folder, or a bucket in the
// form s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION&style=virtual, where PREFIX,
// region and style may be missing. The keys are those of the bucket. It makes no request.
func OpenStorage(location, accessKey string, secret keyring.Secret) (Storage, error) {
	scheme, _, found := strings.Cut(location, "://")
	switch {
	case !found && location == "":
		return nil, errors.New("is the path of a folder or s3://BUCKET/PREFIX?endpoint=https://HOST")
	case !found:
		root, err := filepath.Abs(location)
		if err != nil {
			return nil, err
		}
		return NewFolder(root), nil
	case scheme != "s3":
		return nil, fmt.Errorf("%s:// is not supported; use the path of a folder or s3://BUCKET/PREFIX?endpoint=https://HOST", scheme)
	}
	u, err := url.Parse(location)
	if err != nil { // its text would repeat what may be a password
		return nil, errors.New("is no URL such as s3://BUCKET/PREFIX?endpoint=https://HOST")
	}
	query := u.Query()
	for name := range query {
		if !slices.Contains([]string{"endpoint", "region", "style"}, name) {
			return nil, fmt.Errorf("the parameter %q is unknown; known are endpoint, region and style", name)
		}
	}
	style := query.Get("style")
	if u.Host == "" || u.User != nil || u.Fragment != "" || style != "" && style != "virtual" && style != "path" {
		return nil, errors.New("is s3://BUCKET/PREFIX?endpoint=https://HOST, without keys, which have settings of their own; style is path or virtual")
	}
	if accessKey == "" || secret.IsZero() {
		return nil, errors.New("a bucket needs an access key and a secret key")
	}
	opts := S3Options{
		Endpoint: query.Get("endpoint"), Region: query.Get("region"), Bucket: u.Host, AccessKey: accessKey, Secret: secret, VirtualHost: style == "virtual",
	}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		opts.Prefix = prefix + "/"
	}
	if opts.Endpoint == "" {
		region := opts.Region
		if region == "" {
			region = "us-east-1"
		}
		opts.Endpoint = "https://s3." + region + ".amazonaws.com"
	}
	storage, err := NewS3(opts)
	if err != nil { // a nil *S3 is no nil Storage
		return nil, err
	}
	return storage, nil
}
