package supabasetest

import "context"

// PoolerHost is where both poolers are.
const PoolerHost = "127.0.0.1"

type pooler struct{ port int }

type poolers struct{ session, transaction pooler }

func (s *Server) openPoolers(context.Context) error { return nil }

func (p *poolers) close() error { return nil }
