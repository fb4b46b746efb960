// The application's own server as the Neon guide has its reader write it: Hono, the
// two routes, a plain INSERT. It knows nothing of trueup.
import { serve } from '@hono/node-server';
import ImageKit from '@imagekit/nodejs';
import { Hono } from 'hono';
import pg from 'pg';

const imagekit = new ImageKit();
const db = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const app = new Hono();

// Whoever calls is user_123, until the reader puts a real sign-in here.
const authMiddleware = async (c, next) => {
  c.set('userId', 'user_123');
  await next();
};

app.get('/generate-auth-params', authMiddleware, (c) =>
  c.json({ success: true, ...imagekit.helper.getAuthenticationParameters() }),
);

app.post('/save-metadata', authMiddleware, async (c) => {
  const { fileId, url } = await c.req.json();
  if (!fileId || !url) return c.json({ success: false, error: 'fileId and url are required' }, 400);
  try {
    await db.query('INSERT INTO imagekit_files (file_id, file_url, user_id) VALUES ($1, $2, $3)', [
      fileId,
      url,
      c.get('userId'),
    ]);
    return c.json({ success: true });
  } catch (err) {
    console.error(`save-metadata ${fileId}: ${err.message}`);
    return c.json({ success: false, error: 'Failed to save metadata' }, 500);
  }
});

serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(process.env.PORT) });
