// Command peer runs jobs with Asynq, in Redis.
package main

import (
	"context"
	"encoding/json"
	"time"

	"agentforge.example/peers/contract"
	"github.com/hibiken/asynq"
)

const (
	concurrency   = 256
	checkInterval = 10 * time.Millisecond
)

func main() {
	contract.Peer{
		Setup: func(string) error { return nil },
		Submit: func(url string) (*contract.Submitter, error) {
			redis, err := asynq.ParseRedisURI(url)
			if err != nil {
				return nil, err
			}
			client := asynq.NewClient(redis)
			one := func(args contract.Args) error {
				payload, err := json.Marshal(args)
				if err != nil {
					return err
				}
				_, err = client.Enqueue(asynq.NewTask(args.Kind(), payload))
				return err
			}
			return &contract.Submitter{
				// It has no bulk submission.
				Streams: 64,
				Chunk:   50,
				One:     one,
				Many: func(jobs []contract.Args) error {
					for _, args := range jobs {
						if err := one(args); err != nil {
							return err
						}
					}
					return nil
				},
			}, client.Ping()
		},
		Work: func(url string, _ int, completed func(contract.Args)) (func() error, error) {
			redis, err := asynq.ParseRedisURI(url)
			if err != nil {
				return nil, err
			}
			// It polls an empty queue; with its default of a second, that would be all its latency.
			config := asynq.Config{Concurrency: concurrency, TaskCheckInterval: checkInterval, LogLevel: asynq.FatalLevel}
			server := asynq.NewServer(redis, config)
			// It reports no completions, so jobs count when they have run; the write that follows is not waited for.
			handler := asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
				var args contract.Args
				if err := json.Unmarshal(task.Payload(), &args); err != nil {
					return err
				}
				completed(args)
				return nil
			})
			return func() error { return server.Start(handler) }, server.Ping()
		},
	}.Play()
}
