package supabase

import "slices"

// Region is where a project can be.
type Region struct {
	Code string
	Name string
	Area bool // Supabase picks a region within it
}

func (r Region) kind() string {
	if r.Area {
		return "smartGroup"
	}
	return "specific"
}

// regions as of mid-2026. Source: Supabase documentation, "Available regions".
var regions = []Region{
	{"americas", "Americas", true},
	{"emea", "Europe, Middle East and Africa", true},
	{"apac", "Asia and Pacific", true},
	{"us-east-1", "East US (North Virginia)", false},
	{"us-east-2", "East US (Ohio)", false},
	{"us-west-1", "West US (North California)", false},
	{"us-west-2", "West US (Oregon)", false},
	{"ca-central-1", "Canada (Central)", false},
	{"sa-east-1", "South America (São Paulo)", false},
	{"eu-west-1", "West EU (Ireland)", false},
	{"eu-west-2", "West Europe (London)", false},
	{"eu-west-3", "West EU (Paris)", false},
	{"eu-central-1", "Central EU (Frankfurt)", false},
	{"eu-central-2", "Central Europe (Zurich)", false},
	{"eu-north-1", "North EU (Stockholm)", false},
	{"ap-south-1", "South Asia (Mumbai)", false},
	{"ap-southeast-1", "Southeast Asia (Singapore)", false},
	{"ap-southeast-2", "Oceania (Sydney)", false},
	{"ap-northeast-1", "Northeast Asia (Tokyo)", false},
	{"ap-northeast-2", "Northeast Asia (Seoul)", false},
}

// Regions lists where projects can be made.
func Regions() []Region { return slices.Clone(regions) }

// FindRegion returns the region with that code.
func FindRegion(code string) (Region, bool) {
	i := slices.IndexFunc(regions, func(r Region) bool { return r.Code == code })
	if i < 0 {
		return Region{}, false
	}
	return regions[i], true
}
