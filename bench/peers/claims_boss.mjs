// pg-boss as a queue of jobs, fetched and completed one at a time by each worker. argv: workers, jobs.
import PgBoss from 'pg-boss'

const [workers, jobs] = process.argv.slice(2).map(Number)
const QUEUE = 'bench'
const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, max: workers, supervise: false, schedule: false })
boss.on('error', (error) => { throw error })
await boss.start()
await boss.createQueue(QUEUE)
for (let at = 0; at < jobs; at += 1000) {
  const amount = Math.min(1000, jobs - at)
  await boss.insert(Array.from({ length: amount }, (_, index) => ({ name: QUEUE, data: { number: at + index } })))
}
const seen = new Map()
const work = async () => {
  for (;;) {
    const [job] = await boss.fetch(QUEUE)
    if (!job) return
    seen.set(job.id, (seen.get(job.id) || 0) + 1)
    await boss.complete(QUEUE, job.id)
  }
}
const began = process.hrtime.bigint()
await Promise.all(Array.from({ length: workers }, work))
const seconds = Number(process.hrtime.bigint() - began) / 1e9
console.log(JSON.stringify({ rate: jobs / seconds, once: seen.size === jobs && Math.max(...seen.values()) === 1 }))
process.exit(0)
