package supabase

import "slices"

// Region is a region for projects.
type Region struct {
	Code string
	Name string
	Area bool // it contains several regions, of which Supabase picks one
}

func (r Region) kind() string {
	if r.Area {
		return "smartGroup"
	}
	return "specific"
}

// regions are the regions of mid-2026. Source: Supabase documentation, "Available
// regions".
var regions = []Region{
	{Code: "americas", Name: "Americas", Area: true},
	{Code: "emea", Name: "Europe, Middle East and Africa", Area: true},
	{Code: "apac", Name: "Asia and Pacific", Area: true},
	{Code: "us-east-1", Name: "East US (North Virginia)"},
	{Code: "us-east-2", Name: "East US (Ohio)"},
	{Code: "us-west-1", Name: "West US (North California)"},
	{Code: "us-west-2", Name: "West US (Oregon)"},
	{Code: "ca-central-1", Name: "Canada (Central)"},
	{Code: "sa-east-1", Name: "South America (São Paulo)"},
	{Code: "eu-west-1", Name: "West EU (Ireland)"},
	{Code: "eu-west-2", Name: "West Europe (London)"},
	{Code: "eu-west-3", Name: "West EU (Paris)"},
	{Code: "eu-central-1", Name: "Central EU (Frankfurt)"},
	{Code: "eu-central-2", Name: "Central Europe (Zurich)"},
	{Code: "eu-north-1", Name: "North EU (Stockholm)"},
	{Code: "ap-south-1", Name: "South Asia (Mumbai)"},
	{Code: "ap-southeast-1", Name: "Southeast Asia (Singapore)"},
	{Code: "ap-southeast-2", Name: "Oceania (Sydney)"},
	{Code: "ap-northeast-1", Name: "Northeast Asia (Tokyo)"},
	{Code: "ap-northeast-2", Name: "Northeast Asia (Seoul)"},
}

// Regions returns the regions in which projects can be created.
func Regions() []Region { return slices.Clone(regions) }

// FindRegion returns the region with that code.
func FindRegion(code string) (Region, bool) {
	i := slices.IndexFunc(regions, func(r Region) bool { return r.Code == code })
	if i < 0 {
		return Region{}, false
	}
	return regions[i], true
}
