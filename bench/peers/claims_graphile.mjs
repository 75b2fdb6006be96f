// graphile-worker as a queue of jobs, one at a time per worker. argv: workers, jobs.
import { Logger, makeWorkerUtils, run } from 'graphile-worker'

const [workers, jobs] = process.argv.slice(2).map(Number)
const connectionString = process.env.DATABASE_URL
const logger = new Logger(() => () => {})
const utils = await makeWorkerUtils({ connectionString, logger })
await utils.migrate()
await utils.withPgClient((client) =>
  client.query(`SELECT graphile_worker.add_job('one', json_build_object('number', g)) FROM generate_series(1, ${jobs}) AS g`))
const seen = new Map()
let finish
const finished = new Promise((resolve) => { finish = resolve })
const one = async ({ number }) => {
  seen.set(number, (seen.get(number) || 0) + 1)
  if (seen.size === jobs) finish()
}
const left = async () => {
  const { rows } = await utils.withPgClient((client) => client.query('SELECT count(*)::int AS left FROM graphile_worker.jobs'))
  return rows[0].left
}
const began = process.hrtime.bigint()
const runner = await run({
  connectionString, logger, concurrency: workers, maxPoolSize: workers + 2, pollInterval: 1000, taskList: { one }, noHandleSignals: true,
})
await finished
while (await left()) await new Promise((resolve) => setTimeout(resolve, 5))
const seconds = Number(process.hrtime.bigint() - began) / 1e9
console.log(JSON.stringify({ rate: jobs / seconds, once: seen.size === jobs && Math.max(...seen.values()) === 1 }))
await runner.stop()
process.exit(0)
