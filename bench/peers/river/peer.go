// Command peer runs jobs with River, in Postgres or in SQLite (PEER_STORE).
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"time"

	"agentforge.example/peers/contract"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	_ "modernc.org/sqlite"
)

const concurrency = 1_000

type echo struct {
	river.WorkerDefaults[contract.Args]
}

func (echo) Work(context.Context, *river.Job[contract.Args]) error { return nil }

func main() {
	if os.Getenv("PEER_STORE") == "sqlite" {
		peer(func(url string) (riverdriver.Driver[*sql.Tx], error) {
			pragmas := "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)&_txlock=immediate"
			db, err := sql.Open("sqlite", "file:"+url+pragmas)
			if err != nil {
				return nil, err
			}
			// River's own advice: SQLite has one writer.
			db.SetMaxOpenConns(1)
			return riversqlite.New(db), nil
		}).Play()
		return
	}
	peer(func(url string) (riverdriver.Driver[pgx.Tx], error) {
		pool, err := pgxpool.New(context.Background(), url)
		if err != nil {
			return nil, err
		}
		return riverpgxv5.New(pool), pool.Ping(context.Background())
	}).Play()
}

func peer[TTx any](open func(url string) (riverdriver.Driver[TTx], error)) contract.Peer {
	ctx := context.Background()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	return contract.Peer{
		Setup: func(url string) error {
			driver, err := open(url)
			if err != nil {
				return err
			}
			migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
			if err != nil {
				return err
			}
			_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
			return err
		},
		Submit: func(url string) (*contract.Submitter, error) {
			driver, err := open(url)
			if err != nil {
				return nil, err
			}
			client, err := river.NewClient(driver, &river.Config{Logger: quiet})
			if err != nil {
				return nil, err
			}
			return &contract.Submitter{
				Streams: 2,
				Chunk:   1_000,
				Many: func(jobs []contract.Args) error {
					params := make([]river.InsertManyParams, len(jobs))
					for i, args := range jobs {
						params[i] = river.InsertManyParams{Args: args}
					}
					_, err := client.InsertManyFast(ctx, params)
					return err
				},
				One: func(args contract.Args) error {
					_, err := client.Insert(ctx, args, nil)
					return err
				},
			}, nil
		},
		Work: func(url string, count int, completed func(contract.Args)) (func() error, error) {
			driver, err := open(url)
			if err != nil {
				return nil, err
			}
			workers := river.NewWorkers()
			river.AddWorker(workers, echo{})
			client, err := river.NewClient(driver, &river.Config{
				FetchCooldown: time.Millisecond,
				Logger:        quiet,
				Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: concurrency}},
				Workers:       workers,
			})
			if err != nil {
				return nil, err
			}
			// After the completion is in the database. Events beyond the channel's size would be dropped.
			events, _ := client.SubscribeConfig(&river.SubscribeConfig{
				ChanSize: count + concurrency,
				Kinds:    []river.EventKind{river.EventKindJobCompleted},
			})
			go func() {
				for event := range events {
					var args contract.Args
					if json.Unmarshal(event.Job.EncodedArgs, &args) == nil {
						completed(args)
					}
				}
			}()
			return func() error { return client.Start(ctx) }, nil
		},
	}
}
