// What a reader of the Neon guide has at its end: a Hono server that signs users in by
// a placeholder and writes each report into the table with one INSERT. The guide's
// driver speaks Neon's own protocol; on a PostgreSQL beside it node-postgres with its
// pool is the usual one.
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import pg from 'pg';

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const app = new Hono();

const authMiddleware = async (c, next) => {
  c.set('userId', 'user_123');
  await next();
};

app.post('/save-metadata', authMiddleware, async (c) => {
  try {
    const { fileId, url } = await c.req.json();
    if (!fileId || !url) {
      return c.json({ success: false, error: 'fileId and url are required' }, 400);
    }
    await pool.query('INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ($1, $2, $3)', [
      fileId,
      url,
      c.get('userId'),
    ]);
    return c.json({ success: true });
  } catch (error) {
    console.error('save-metadata:', error.message);
    return c.json({ success: false, error: 'Failed to save metadata' }, 500);
  }
});

serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 }, (info) => console.log(`http://127.0.0.1:${info.port}`));

// It ends with whoever started it.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
